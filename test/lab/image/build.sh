#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build.sh OUT CACHE: makes in OUT what the lab's machines boot from: base.img, the root
# file system; vmlinux, initrd.img and xen, for qemu's -kernel; id, the key for ssh.
# CACHE holds packages from build to build.
# Needs root, and the programs of `deps.sh lab`. Nothing is mounted.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=$1 cache=$2
mkdir -p "$out" "$cache/debs"

lines() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/$1"; }

# 1. The package tree, kept while the list of packages stays the same.
packages=$(lines packages | paste -sd,)
if [ "$(cat "$cache/packages.list" 2>/dev/null)" != "$packages" ]; then
	rm -f "$cache/packages.list"
	# The index of what can be installed comes from this machine's own sources.
	mmdebstrap --variant=essential --mode=root --include="$packages" \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
		--skip=download/empty --skip=essential/unlink \
		--setup-hook='mkdir -p "$1"/var/cache/apt/archives/' \
		--setup-hook="sync-in $cache/debs /var/cache/apt/archives/" \
		--customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
		--customize-hook="sync-out /var/cache/apt/archives $cache/debs" \
		bookworm "$cache/packages.tar" "${LAB_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
	echo "$packages" >"$cache/packages.list"
fi
root=$out/root
rm -rf "$root"
mkdir "$root"
tar -C "$root" --numeric-owner -xf "$cache/packages.tar"

# 2. The kernel: unpacked, not installed, for its own scripts would build an initrd for
# another machine and bring 400 MB of modules.
kernel=$out/kernel
package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
if ! ls "$cache/debs/$package"_*.deb >/dev/null 2>&1; then
	(cd "$cache/debs" && apt-get -qq -o APT::Sandbox::User=root download "$package")
fi
rm -rf "$kernel"
mkdir "$kernel"
dpkg-deb -x "$(ls "$cache/debs/$package"_*.deb | tail -n 1)" "$kernel"
version=$(ls "$kernel/lib/modules")
depmod -b "$kernel" "$version"
# A vmlinuz carries the kernel as an xz stream. Unpacked once here, it need not be
# unpacked under emulation at each boot.
offset=$(LC_ALL=C grep -aobP '\xfd7zXZ\x00' "$kernel/boot/vmlinuz-$version" | { head -n 1; cat >/dev/null; } | cut -d: -f1)
tail -c +$((offset + 1)) "$kernel/boot/vmlinuz-$version" | xz -dc --single-stream >"$out/vmlinux" || true
[ "$(head -c 4 "$out/vmlinux" | tail -c 3)" = ELF ] || { echo "no kernel was found in vmlinuz-$version" >&2; exit 1; }
gunzip -c "$root"/boot/xen-*-amd64.gz >"$out/xen"

# modules_of MODULE...: the files of modules and of what they need, in loading order.
modules_of() {
	for module; do
		modprobe -d "$kernel" -S "$version" --show-depends --ignore-install "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ {print $2}'
}
# shellcheck disable=SC2046 # lists of words
modules_of $(lines modules) | while read -r file; do
	install -D -m 644 "$file" "$root/${file#"$kernel"/}"
done
cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
depmod -b "$root" "$version"

# 3. The configuration: what is in root/, units that nobody needs, keys.
cp -rT --no-preserve=ownership "$here/root" "$root"
chmod 755 "$root"/usr/local/sbin/lab-*
lines masked-units | while read -r unit; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
mkdir -p "$root"/etc/systemd/system/{sysinit,multi-user}.target.wants "$root/var/log/xen/console"
ln -sf ../lab-setup.service "$root/etc/systemd/system/sysinit.target.wants/"
ln -sf ../lab-ready.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
sed -i 's/^node.startup = .*/node.startup = manual/' "$root/etc/iscsi/iscsid.conf"
rm -f "$root"/etc/rc?.d/*xendomains "$root"/etc/systemd/system/multi-user.target.wants/{tgt,prometheus}.service
echo 'XENCONSOLED_ARGS="--log=guest"' >>"$root/etc/default/xen"

rm -f "$out/id" "$out/id.pub" "$root"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C lab -f "$out/id"
ssh-keygen -q -t ed25519 -N '' -f "$root/etc/ssh/ssh_host_ed25519_key"
install -m 600 "$out/id" "$root/root/.ssh/id_ed25519"
install -m 600 "$out/id.pub" "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root/.ssh"
chmod 600 "$root/root/.ssh/config"

# 4. The initrds, and the kernel for Xen's guests.
initrd() { # FILE INIT MODULE...
	local file=$1 init=$2 tree n=10
	shift 2
	tree=$(mktemp -d)
	mkdir -p "$tree"/{bin,dev,proc,sys,root,mnt,modules}
	cp "$root/bin/busybox" "$tree/bin/"
	ln -s busybox "$tree/bin/sh"
	modules_of "$@" | while read -r module; do
		cp "$module" "$tree/modules/$n-$(basename "$module")"
		n=$((n + 1))
	done
	install -m 755 "$here/$init" "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$file"
	rm -rf "$tree"
}
initrd "$out/initrd.img" init virtio_pci virtio_blk ext4 crc32c_generic
mkdir -p "$root/srv/domu"
install -m 644 "$out/vmlinux" "$root/srv/domu/vmlinux"
initrd "$root/srv/domu/initrd.img" init-guest xen_blkfront ext4 crc32c_generic

# 5. The file system, made from the tree.
rm -rf "$root"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
rm -f "$out/base.img"
truncate -s 2G "$out/base.img"
mke2fs -q -F -t ext4 -L labroot -O '^has_journal,^metadata_csum' -m 0 -d "$root" "$out/base.img"
rm -rf "$root" "$kernel"
