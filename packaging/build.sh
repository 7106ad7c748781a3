#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh VERSION OUT: makes OUT/gotgtd_VERSION_ARCH.deb and OUT/gotgtd-VERSION.ARCH.rpm of what `make install`
# puts in place, and OUT/SHA256SUMS. The programs are built in $BIN, if it is set. nfpm, which writes the formats, has a module of its own, so that nobody who
# builds or embeds gotgtd loads it.
set -eu
cd "$(dirname "$0")/.."
version=$1 out=$2
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # by way of the trap for EXIT

# Static programs without tables for debuggers (a panic has its trace all the same): one package for every distribution.
export CGO_ENABLED=0
export ROOT="$work/root"
make -s install BIN="${BIN:-$work/bin}" VERSION="$version" LDFLAGS='-s -w' DESTDIR="$ROOT" PREFIX=/usr >/dev/null

# The times in a package are those of the commit, so that a build can be repeated.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
MAINTAINER=${MAINTAINER:-gotgtd maintainers <gotgtd@users.noreply.github.com>}
ARCH=$(go env GOARCH)
# A version begins with a digit in both formats: v1.2.3-4-gabc is 1.2.3+4.gabc, and a
# commit without a tag is 0~abc, older than every release.
PACKAGE_VERSION=$(printf '%s' "$version" | sed -E 's/^v//; s/-([0-9]+)-g/+\1.g/; s/-dirty$/+dirty/; /^[0-9]+\./!s/^/0~/; s/[^A-Za-z0-9.+~]/./g')
export SOURCE_DATE_EPOCH MAINTAINER ARCH PACKAGE_VERSION

doc=$ROOT/usr/share/doc/gotgtd
{
	echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
	echo "Upstream-Name: gotgtd"
	echo
	echo "Files: *"
	echo "Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the gotgtd authors"
	echo "License: Apache-2.0"
	echo " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
} >"$doc/copyright"
rm "$doc/LICENSE" "$ROOT/usr/lib/gotgtd/manifest"
{ # as Debian's tools read it; CHANGELOG.md has what has changed
	echo "gotgtd ($PACKAGE_VERSION) unstable; urgency=medium"
	echo
	echo "  * See CHANGELOG.md."
	echo
	echo " -- $MAINTAINER  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.gz"
find "$ROOT/usr/share/man" "$ROOT/usr/lib/gotgtd/tgt/man" -type f -exec gzip -9n {} +
find "$ROOT" -type d -exec chmod 755 {} +

mkdir -p "$out"
rm -f "$out"/gotgtd[_-]*.deb "$out"/gotgtd-*.rpm "$out/SHA256SUMS"
go build -modfile=packaging/go.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
for format in deb rpm; do
	"$work/nfpm" package -f packaging/nfpm.yaml -p "$format" -t "$out/" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
done
(cd "$out" && sha256sum -- gotgtd*.deb gotgtd*.rpm >SHA256SUMS && cat SHA256SUMS)
