#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the machine: it has the tools of the lab's image, runs the
# commands that come to port 23, and has none of the other disks before a command says so.
b=/bin/busybox
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
$b mount -t devtmpfs none /dev
$b mount -t proc none /proc
$b mount -t sysfs none /sys
for module in /modules/*; do
	case $module in *virtio_blk*) echo 0 >/sys/bus/virtio/drivers_autoprobe ;; esac
	$b insmod "$module" 2>/dev/null
done
echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind
echo 1 >/sys/bus/virtio/drivers_autoprobe
$b mount -t ext4 -o ro /dev/vda /root || echo 'LAB-FAILED no root disk'
$b mount -t devtmpfs none /root/dev
$b mount -t proc none /root/proc
$b mount -t sysfs none /root/sys
for dir in run tmp mnt; do $b mount -t tmpfs -o mode=755 none /root/$dir; done
$b mkdir -p /root/mnt/state /root/mnt/ext4 /root/mnt/xfs
$b chroot /root modprobe -a virtio_net virtio_rng xfs
address=$($b sed -n 's/.*lab.address=\([^ ]*\).*/\1/p' /proc/cmdline)
$b ip link set lo up
$b ip addr add "$address/24" dev eth0
$b ip link set eth0 up
$b chroot /root /bin/busybox nc -ll -p 23 -e /bin/sh &
echo LAB-READY
while :; do wait; $b sleep 60; done
