#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# verify.sh: the units are well formed and closed as tightly as they claim.
set -eu
cd "$(dirname "$0")"
limit=2.0

# The units name programs where they are installed, so they are looked at in a
# tree in which these are there.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for unit in *.service *.socket; do
	sed "s|/usr/bin/|$tree/|g" "$unit" >"$tree/$unit"
done
for program in upgraded gotgtd; do
	printf '#!/bin/sh\n' >"$tree/$program"
	chmod 755 "$tree/$program"
done

for unit in *.service *.socket; do
	out=$(systemd-analyze verify --man=no --recursive-errors=no "$tree/$unit" 2>&1) || {
		echo "$unit: $out" >&2
		exit 1
	}
	if [ -n "$out" ]; then
		echo "$unit: $out" >&2
		exit 1
	fi
done
for unit in *.service; do
	level=$(systemd-analyze security --offline=true "$tree/$unit" 2>&1 | awk '/Overall exposure level/ { print $(NF-2) }')
	echo "$unit: exposure level $level, at most $limit"
	awk -v level="$level" -v limit="$limit" 'BEGIN { exit !(level != "" && level <= limit) }' || {
		echo "$unit: systemd-analyze security rates it $level, which is more than $limit" >&2
		exit 1
	}
done
