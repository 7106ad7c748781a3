#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Before the files go. dpkg: remove | upgrade ...; rpm: the number of versions that stay.
set -e

case $1 in
remove | 0) ;;
*) exit 0 ;; # another version comes in its place: what runs goes on until that is there
esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now gotgtd.service gotgtd.socket gotgtd-direct.service gotgtd-direct.socket || :
