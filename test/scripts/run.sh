#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh DISK TARGET LISTEN: serves DISK, made if it is missing, until Ctrl-C.
set -eu

disk=$1 target=$2 listen=$3
here=$(dirname "$0")
[ -e "$disk" ] || "$here/busybox.sh" "$disk"

cat <<END

$target LUN 1 is $disk, at $listen.

Linux, as root:
  iscsiadm -m discovery -t sendtargets -p $listen
  iscsiadm -m node -T $target -p $listen --login
  iscsiadm -m node -T $target -p $listen --logout

QEMU:
  qemu-system-x86_64 -m 512 -drive file=iscsi://$listen/$target/1,format=raw
  qemu-img info iscsi://$listen/$target/1

Xen, with the disk logged in on the host as above:
  disk = [ 'phy:/dev/disk/by-path/ip-$listen-iscsi-$target-lun-1,xvda,w' ]
  xl create busybox.cfg

bin/gotgtd show, in this folder, shows who is using it. Ctrl-C stops it.

END

gotgtd=$here/../../bin/gotgtd

# stop ends whichever generation serves. One that is ending already does not answer,
# and has no second signal: that would end it at once.
stop() {
	while sleep 1; do
		pid=$("$gotgtd" show --json 2>/dev/null | sed -n 's/^  "pid": \([0-9]*\),*$/\1/p')
		[ -n "$pid" ] || return 0
		kill "$pid" || :
	done
}

# An upgrade ends the process that is started here, and its successor serves on with
# the same standard output, on which none of them writes: it is at its end when all
# of them are. Ctrl-C reaches them without help, as they are in this process group.
{ "$gotgtd" serve --disk "$disk" --target "$target" --listen "$listen" || echo $?; } | (
	status=$(cat)
	exit "${status:-0}"
) &
served=$!
trap : INT
trap stop TERM HUP
while :; do
	status=0
	wait "$served" || status=$?
	kill -0 "$served" 2>/dev/null || exit "$status"
done
