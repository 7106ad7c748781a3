#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After the files have gone. dpkg: remove | purge | upgrade ...; rpm: the number of versions
# that stay. Disks stay, wherever they are: nobody but their owner throws them away.
set -e

case $1 in
purge | 0)
	# What gotgtd has noted for itself, and the accounts' secrets. The user stays: what
	# belongs to it, such as disks, must not become somebody else's.
	rm -f /var/lib/gotgtd/numbers.yaml /var/lib/gotgtd/*.reservations
	rmdir /var/lib/gotgtd /srv/gotgtd 2>/dev/null || :
	[ "$1" = 0 ] || rm -rf /etc/gotgtd
	;;
esac
[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
