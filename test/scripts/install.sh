#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install.sh DESTDIR PREFIX: puts the programs, units, manual pages and the example
# configuration in place. A configuration that is already there is left alone.
set -eu
cd "$(dirname "$0")/../.."
dest=$1 prefix=$2

put() { # MODE DIRECTORY FILE...
	mode=$1 dir=$dest$2
	shift 2
	install -d "$dir"
	for file; do
		install -m "$mode" "$file" "$dir/"
		echo "$dir/$(basename "$file")"
	done
}

put 755 "$prefix/bin" bin/gotgtd bin/upgraded
# tgt's tools are other names of gotgtd, in a folder of their own for PATH.
tools=$dest$prefix/lib/gotgtd/tgt
install -d "$tools"
for tool in tgtadm tgt-admin; do
	ln -sf ../../../bin/gotgtd "$tools/$tool"
	echo "$tools/$tool"
done
# man(1) looks for manuals beside the programs in PATH: those of tgt's tools are theirs.
put 644 "$prefix/lib/gotgtd/tgt/man/man8" docs/man/tgt/*.8
put 644 "$prefix/share/man/man8" docs/man/*.8
put 644 "$prefix/share/man/man5" docs/man/*.5
put 644 "$prefix/share/doc/gotgtd" README.md CHANGELOG.md LICENSE docs/*.md docs/*.svg docs/openapi.yaml
put 644 "$prefix/share/doc/gotgtd/examples" docs/examples/*

units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
for unit in systemd/*.service systemd/*.socket; do
	sed "s|/usr/bin/|$prefix/bin/|g" "$unit" >"$units/$(basename "$unit")"
done
put 644 "$prefix/lib/systemd/system" "$units"/*
for kind in sysusers tmpfiles; do
	for file in systemd/*.$kind systemd/$kind.d/*.conf; do
		[ -e "$file" ] || continue
		install -d "$dest$prefix/lib/$kind.d"
		install -m 644 "$file" "$dest$prefix/lib/$kind.d/$(basename "${file%.*}").conf"
		echo "$dest$prefix/lib/$kind.d/$(basename "${file%.*}").conf"
	done
done

config=$dest/etc/gotgtd/gotgtd.yaml
if [ ! -e "$config" ]; then
	install -d -m 755 "$dest/etc/gotgtd"
	install -m 640 docs/examples/gotgtd.yaml "$config"
	echo "$config"
fi

# On this machine itself, the service's user and folders are needed at once; a
# package's own scripts, or the next boot, make them elsewhere.
if [ -z "$dest" ] && [ "$(id -u)" -eq 0 ] && [ -d /run/systemd/system ]; then
	systemd-sysusers gotgtd.conf
	systemd-tmpfiles --create gotgtd.conf
	systemctl daemon-reload
fi
