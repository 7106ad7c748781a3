#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# verify-rpm.sh OLD NEW: the package is installed by rpm in a root of its own, with its scripts, upgraded, gone back from, and
# removed. What an administrator has changed is kept, and nothing else is left but disks. Nothing of this machine is
# touched; without root the owners of files can't be looked at.
set -eu
if [ -z "${IN_NAMESPACE-}" ]; then # whose mounts go with it
	root=--propagation=private
	[ "$(id -u)" = 0 ] || root=--map-root-user
	IN_NAMESPACE=1 exec unshare --mount "$root" "$0" "$@"
fi
old=$1 new=$2
root=$(mktemp -d)
trap 'umount -l "$root/proc" 2>/dev/null; rm -rf --one-file-system "$root" "$root".*' EXIT
# A user namespace of somebody else has no other user than root.
[ "$(awk '{print $3; exit}' /proc/self/uid_map)" = 1 ] && alone=1 || alone=
fail() { echo "the .rpm: $1" >&2; exit 1; }

# What the scripts need, and what they do on a machine without systemd as the first process.
mkdir -p "$root"/{dev,etc,proc,root,run,srv,tmp,usr/bin,usr/lib64,var/lib,var/tmp} "$root"/usr/lib/{systemd/system,sysusers.d,tmpfiles.d} \
	"$root"/usr/share/{bash-completion/completions,doc,fish/vendor_completions.d,licenses,man/man5,man/man8,zsh/site-functions}
for folder in bin lib lib64; do
	ln -s "usr/$folder" "$root/$folder"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
for program in sh rm rmdir systemd-sysusers systemd-tmpfiles; do
	path=$(command -v "$program") || fail "no $program here to try its scripts with"
	cp -L "$path" "$root/usr/bin/"
	ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$root${library%/*}"
		cp -Ln "$library" "$root$library"
	done
done
mount --rbind /proc "$root/proc" # systemd's programs want it
in_root() { HOME=/root rpm --root "$root" --force-debian "$@"; } # the database of a new root knows no systemd to depend on
files() { (cd "$root" && find . -xdev ! -path '*rpm*db*' ! -path './dev/*' | sort); }
files >"$root.before"

expected='^Creating (user|group) '
[ -z "$alone" ] || expected+='|^fchownat\(\) of .* failed: Invalid argument$'
quietly() { # WHAT COMMAND...: nothing is to be said but what is expected
	local what=$1
	shift
	"$@" >"$root.said" 2>&1 || { cat "$root.said" >&2; fail "$what has failed"; }
	! grep -qvE "$expected" "$root.said" || { cat "$root.said" >&2; fail "$what says something"; }
}
config=$root/etc/gotgtd/gotgtd.yaml
quietly "installation" in_root -i --nodeps "$old"
grep -q '^gotgtd:' "$root/etc/passwd" || fail "its scripts have not made the user"
[ -d "$root/srv/gotgtd" ] && [ -d "$root/var/lib/gotgtd" ] || fail "its scripts have not made the folders"
owner=$(awk -F: '$1 == "gotgtd" {print $3}' "$root/etc/passwd")
[ -n "$alone" ] || [ "$(stat -c %u "$root/var/lib/gotgtd")" = "$owner" ] || fail "/var/lib/gotgtd is not the user's"
[ "$(stat -c %a "$config")" = 640 ] || fail "the configuration's mode is $(stat -c %a "$config")"
chroot "$root" gotgtd check --config /etc/gotgtd/gotgtd.yaml >/dev/null || fail "the configuration that it brings is wrong"
in_root -V --nodeps --nogroup gotgtd >"$root.said" || { cat "$root.said" >&2; fail "what is installed is not what is in it"; } # the configuration is given to the group
in_root -qc gotgtd >"$root.said"
[ "$(cat "$root.said")" = /etc/gotgtd/gotgtd.yaml ] || fail "its configuration files are $(cat "$root.said")"

# Another version comes, and goes again: what was changed stays as it is.
echo '# changed' >>"$config"
touch "$root/srv/gotgtd/disk.img" "$root/var/lib/gotgtd/"{numbers.yaml,1.reservations,disk.img}
cp "$config" "$root.config"
quietly "the upgrade" in_root -U --nodeps "$new"
cmp "$config" "$root.config" || fail "the upgrade has changed the configuration"
quietly "the way back" in_root -U --nodeps --oldpackage "$old"
cmp "$config" "$root.config" || fail "the way back has changed the configuration"
[ -e "$root/var/lib/gotgtd/numbers.yaml" ] || fail "an upgrade has removed the numbers"
[ "$(in_root -q gotgtd)" = "$(rpm -qp --nosignature "$old")" ] || fail "$(in_root -q gotgtd) is installed in the end"

in_root -e gotgtd >"$root.said" 2>&1 || { cat "$root.said" >&2; fail "the removal has failed"; }
grep -qv 'saved as .*gotgtd.yaml.rpmsave' "$root.said" && { cat "$root.said" >&2; fail "the removal says something"; }
cmp "$config.rpmsave" "$root.config" || fail "the removal has not kept what was changed"
# The user stays, whose the disks are, and systemd's lock of the accounts.
files | comm -13 "$root.before" - >"$root.left"
cat >"$root.want" <<-'END'
	./etc/gotgtd
	./etc/gotgtd/gotgtd.yaml.rpmsave
	./srv/gotgtd
	./srv/gotgtd/disk.img
	./var/lib/gotgtd
	./var/lib/gotgtd/disk.img
END
grep -v -e '^./etc/[.]pwd.lock$' -e '^./etc/\(g\?shadow\|passwd\|group\|gshadow\)-\?$' "$root.left" | diff "$root.want" - ||
	fail "the removal has left something else"
