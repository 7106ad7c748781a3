#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After an installation or an upgrade. dpkg: configure [OLD VERSION]; rpm: the number of
# installed versions.
set -e

case $1 in
configure | [0-9]*) ;;
*) exit 0 ;; # dpkg takes a failed removal or upgrade back
esac

systemd-sysusers gotgtd.conf
systemd-tmpfiles --create gotgtd.conf || :

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || :

# A first installation starts nothing: there is no disk yet. What runs goes on in the new
# version: a reload is a hot upgrade, and reexec does the same to upgraded. Where the new
# version declines, the old one goes on, and the administrator reads why.
if systemctl -q is-active gotgtd.service; then
	systemctl reload gotgtd.service && upgraded reexec --control /run/gotgtd/upgraded.sock ||
		echo "gotgtd: the version that ran goes on; systemctl reload gotgtd and upgraded reexec try again" >&2
fi
if systemctl -q is-active gotgtd-direct.service; then
	systemctl reload gotgtd-direct.service ||
		echo "gotgtd: the version that ran goes on; systemctl reload gotgtd-direct tries again" >&2
fi
