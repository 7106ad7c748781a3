#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# disk.sh FILE COUNTER: makes FILE the disk of the lab's Xen guest: the busybox system
# of test/scripts/busybox.sh on the first GiB, with the program COUNTER started by
# its init, and behind it 64 MiB where the counter is written. Needs no root.
set -eu

file=$1 counter=$2
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$here/../../scripts/busybox.sh" "$file.part"
case $counter in *[\"\ ]*) echo "can't use the name $counter" >&2; exit 1 ;; esac

# init runs the lines of kind shutdown one after the other, before it kills what runs.
cat >"$work/inittab" <<'END'
::sysinit:/etc/init.d/rcS
::once:/sbin/counter write -offset 1073741824 -size 67108864 -file /var/counter /dev/xvda
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/rcK
::shutdown:/bin/umount -a -r
END
cat >"$work/rcK" <<'END'
#!/bin/sh
killall -TERM counter
n=0
while pidof counter >/dev/null && [ $n -lt 300 ]; do
	sleep 0.1
	n=$((n + 1))
done
END
cat >"$work/script" <<END
rm /etc/inittab
write $work/inittab /etc/inittab
write $work/rcK /etc/init.d/rcK
write $counter /sbin/counter
set_inode_field /etc/inittab mode 0100644
set_inode_field /etc/init.d/rcK mode 0100755
set_inode_field /sbin/counter mode 0100755
END
for path in /etc/inittab /etc/init.d/rcK /sbin/counter; do
	echo "set_inode_field $path uid 0"
	echo "set_inode_field $path gid 0"
done >>"$work/script"
# debugfs exits with 0 whatever becomes of its commands: look for the last file.
debugfs -w -f "$work/script" "$file.part" >"$work/log" 2>&1
debugfs -R "dump /sbin/counter $work/counter" "$file.part" >>"$work/log" 2>&1
if ! cmp "$counter" "$work/counter" || ! e2fsck -fn "$file.part" >>"$work/log" 2>&1; then
	cat "$work/log" >&2
	exit 1
fi

truncate -s 1088M "$file.part"
mv "$file.part" "$file"
