#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# verify.sh: what make install puts in place is complete, its units are well formed
# and closed as tightly as they claim, and its configuration is one.
set -eu
cd "$(dirname "$0")/.."
limit=2.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
make -s install DESTDIR="$tree" PREFIX=/usr >"$work/installed"

for file in usr/bin/gotgtd usr/bin/upgraded \
	usr/share/man/man8/gotgtd.8 usr/share/man/man8/upgraded.8 usr/share/man/man5/gotgtd.yaml.5 \
	usr/lib/systemd/system/gotgtd.socket usr/lib/systemd/system/gotgtd.service \
	usr/lib/systemd/system/gotgtd-direct.service \
	usr/lib/sysusers.d/gotgtd.conf usr/lib/tmpfiles.d/gotgtd.conf \
	usr/share/doc/gotgtd/supervisor.md usr/share/doc/gotgtd/lab-xen.svg etc/gotgtd/gotgtd.yaml; do
	[ -s "$tree/$file" ] || { echo "make install has not put /$file in place" >&2; exit 1; }
	grep -qxF "$tree/$file" "$work/installed" || { echo "make install does not name /$file" >&2; exit 1; }
done
# The disk's folder is the service's, and systemd makes it.
sed "s|/var/lib/gotgtd|$work|" "$tree/etc/gotgtd/gotgtd.yaml" >"$work/gotgtd.yaml"
"$tree/usr/bin/gotgtd" check --config "$work/gotgtd.yaml" >"$work/check" 2>&1 || {
	cat "$work/check" >&2
	exit 1
}
systemd-sysusers --dry-run "$tree/usr/lib/sysusers.d/gotgtd.conf" >"$work/users" 2>&1 || {
	cat "$work/users" >&2
	exit 1
}

# The units name programs where they are installed, so they are looked at with
# these paths in the tree.
units=$work/units
mkdir "$units"
for unit in "$tree"/usr/lib/systemd/system/*; do
	sed "s|/usr/bin/|$tree/usr/bin/|g" "$unit" >"$units/$(basename "$unit")"
done
cd "$units"
for unit in *; do
	out=$(systemd-analyze verify --man=no --recursive-errors=no "$units/$unit" 2>&1) || {
		echo "$unit: $out" >&2
		exit 1
	}
	if [ -n "$out" ]; then
		echo "$unit: $out" >&2
		exit 1
	fi
done
for unit in *.service; do
	# Without it the death of one generation by the OOM killer ends the others as well.
	grep -qx 'OOMPolicy=continue' "$unit" || { echo "$unit: OOMPolicy=continue is missing" >&2; exit 1; }
	level=$(systemd-analyze security --offline=true "$units/$unit" 2>&1 | awk '/Overall exposure level/ { print $(NF-2) }')
	echo "$unit: exposure level $level, at most $limit"
	awk -v level="$level" -v limit="$limit" 'BEGIN { exit !(level != "" && level <= limit) }' || {
		echo "$unit: systemd-analyze security rates it $level, which is more than $limit" >&2
		exit 1
	}
done
