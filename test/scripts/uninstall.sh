#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# uninstall.sh DESTDIR PREFIX: removes what install.sh has noted that it put in place, and the
# folders that are empty then. The configuration, what the service has written, and disks stay.
set -eu
dest=$1 prefix=$2
manifest=$dest$prefix/lib/gotgtd/manifest
[ -r "$manifest" ] || { echo "$manifest is missing: nothing that make install has put under $dest$prefix is known" >&2; exit 1; }

while read -r file; do
	case $file in
	"$prefix"/*) rm -f "$dest$file" ;;
	*) echo "$manifest names $file, which is not under $prefix: left alone" >&2 ;;
	esac
done <"$manifest"
list=$(sort -ru "$manifest")
rm -f "$manifest"
for file in $list; do
	folder=$(dirname "$file")
	while case ${folder#"$prefix"/} in *gotgtd*) ;; *) false ;; esac; do # others' folders stay
		rmdir "$dest$folder" 2>/dev/null || break
		folder=$(dirname "$folder")
	done
done
[ ! -d "$dest/etc/gotgtd" ] || echo "$dest/etc/gotgtd stays: it is the configuration"
