#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# release.sh VERSION OUT: makes all files of a release in OUT: packages, image, source, one SBOM for each program
# (CycloneDX), what CHANGELOG.md says of the version, and SHA256SUMS of these. It publishes nothing. It refuses a
# tree that is not exactly the tag VERSION, so that anybody can build the same bytes again.
set -eu
cd "$(dirname "$0")/.."
version=$1 out=$2
fail() {
	echo "no release: $*" >&2
	exit 1
}

number=$(printf '%s' "$version" | sed -nE 's/^v([0-9]+\.[0-9]+\.[0-9]+)$/\1/p')
[ -n "$number" ] || fail "version $version is not vX.Y.Z: tag the commit (git tag -a vX.Y.Z), see docs/releasing.md"
[ -z "$(git status --porcelain)" ] || fail "the tree has changes that are not committed (git status)"
commit=$(git rev-parse --verify -q "refs/tags/$version^{commit}") || fail "there is no tag $version"
[ "$commit" = "$(git rev-parse HEAD)" ] || fail "what is checked out is not the tag $version"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # by way of the trap for EXIT
files=$work/files
mkdir "$files"
notes=$files/gotgtd-$number.md
awk -v head="## $number" 'index($0, "## ") == 1 { on = $0 == head || index($0, head ", ") == 1; next } on' CHANGELOG.md >"$notes"
grep -q '[^[:space:]]' "$notes" || fail "CHANGELOG.md has no section \"## $number, DATE\", or nothing in it"

# Packages and image have the same programs, which are linked once.
export BIN="$work/bin" CGO_ENABLED=0
packaging/build.sh "$version" "$files" >/dev/null
packaging/image.sh "$version" "$files" >/dev/null
git archive --format=tar --prefix="gotgtd-$number/" "$version" | gzip -9n >"$files/gotgtd-$number.tar.gz"
arch=$(go env GOARCH)
# -trimpath: an SBOM has the checksum of the program that made it.
GOOS='' GOARCH='' go build -trimpath -buildvcs=false -modfile=packaging/go.mod -o "$work/sbom" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
for program in gotgtd upgraded; do
	# From what the linker has noted in the program: what is in it, and nothing else.
	"$work/sbom" bin -json -std -noserial -notimestamp -version "$version" \
		-output "$files/$program-$number-$arch.cdx.json" "$BIN/$program" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
done
(cd "$files" && rm SHA256SUMS && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
mkdir -p "$(dirname "$out")"
rm -rf "$out"
cp -r "$files" "$out"
cat "$out/SHA256SUMS"
