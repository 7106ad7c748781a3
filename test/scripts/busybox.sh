#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# busybox.sh FILE: makes FILE the root disk of a busybox guest, 1 GiB, sparse, ext4.
# It boots with init=/bin/sh as well as with busybox's own init. Needs no root.
# Where mke2fs or busybox is not to be had, FILE is an empty disk, and a line says so.
set -eu

file=$1
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
half=$file.part

empty() {
	truncate -s 1G "$half"
	mv "$half" "$file"
	echo "$file is an empty disk: $1"
	exit 0
}

"$(dirname "$0")/deps.sh" run 2>"$work/why" || empty "$(tr '\n' ' ' <"$work/why")"

# A busybox that needs shared libraries would not start in the guest.
! ldd "$(command -v busybox)" >/dev/null 2>&1 || empty 'busybox here is not static: install busybox-static'

mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/etc/init.d" \
	"$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/run" "$root/root" "$root/mnt" "$root/var"
chmod 1777 "$root/tmp"
chmod 700 "$root/root"

cp "$(command -v busybox)" "$root/bin/busybox"
"$root/bin/busybox" --list-full | while read -r applet; do
	[ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done

echo busybox >"$root/etc/hostname"
echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cat >"$root/etc/fstab" <<'END'
proc     /proc proc     defaults 0 0
sysfs    /sys  sysfs    defaults 0 0
devtmpfs /dev  devtmpfs defaults 0 0
END
cat >"$root/etc/inittab" <<'END'
::sysinit:/etc/init.d/rcS
::askfirst:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r
END
cat >"$root/etc/init.d/rcS" <<'END'
#!/bin/sh
mount -a
mount -o remount,rw /
hostname -F /etc/hostname
END
chmod 755 "$root/etc/init.d/rcS"

truncate -s 1G "$half"
mke2fs -q -t ext4 -L busybox -m 0 -E root_owner=0:0 -d "$root" "$half"

# mke2fs copies the owner of each file, and only root can make device nodes in a
# tree: debugfs does both inside the image.
{
	(cd "$root" && find . -mindepth 1 | sed 's/^\.//') | while read -r path; do
		echo "set_inode_field \"$path\" uid 0"
		echo "set_inode_field \"$path\" gid 0"
	done
	echo 'cd /dev'
	while read -r name type major minor mode; do
		echo "mknod $name $type $major $minor"
		echo "set_inode_field $name mode $mode"
	done <<-END
		console c 5 1 020600
		null c 1 3 020666
		zero c 1 5 020666
		tty c 5 0 020666
		xvda b 202 0 060660
	END
} >"$work/script"
debugfs -w -f "$work/script" "$half" >"$work/debugfs.log" 2>&1
mv "$half" "$file"
echo "$file: a busybox root disk, $(du -h "$file" | cut -f1) of 1 GiB in use"
