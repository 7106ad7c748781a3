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
exec "$here/../../bin/gotgtd" serve --disk "$disk" --target "$target" --listen "$listen"
