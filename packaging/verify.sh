#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# verify.sh: a release is made of a tag and of nothing else, and can be repeated bit by bit; lintian has nothing
# to say of the Debian package, both packages have the same files, rpm installs and removes its own, and a version becomes one that sorts as it should.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy of the tree, with what is not committed yet, in which a version can be tagged.
copy=$work/copy
mkdir "$copy"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
	[ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --create --null --files-from - | tar --extract --directory "$copy"
here() { git -C "$copy" -c user.name=verify -c user.email=verify@example.org -c core.excludesFile=/dev/null "$@"; }
here init -q
release() { # OUT
	make -s -C "$copy" release >"$work/said" 2>&1 || return 1
	mv "$copy/build/release" "$work/$1"
}
refused() { # TEXT: why there is no release
	! release no || { echo "there is a release, though: $1" >&2; exit 1; }
	grep -qF "$1" "$work/said" || { cat "$work/said" >&2; exit 1; }
}
commit() { here add --all && here commit -q -m "$1"; }
commit "as it is"
refused "is not vX.Y.Z"
here tag -a -m v1.2.3 v1.2.3
refused "CHANGELOG.md has no section"
sed -i 's/^## Unreleased$/## 1.2.3, 2026-11-28/' "$copy/CHANGELOG.md"
refused "is not vX.Y.Z" # v1.2.3-dirty
commit "1.2.3"
here tag -f -a -m v1.2.3 v1.2.3 >/dev/null
release one || { cat "$work/said" >&2; exit 1; }
# Another folder, and another environment.
mv "$copy" "$work/elsewhere" && copy=$work/elsewhere
(umask 077 && TZ=Asia/Kathmandu GOFLAGS=-buildvcs=auto release two) || { cat "$work/said" >&2; exit 1; }
diff -r "$work/one" "$work/two" || { echo "two builds of one commit differ" >&2; exit 1; }
(cd "$work/one" && sha256sum --quiet --check SHA256SUMS)
listed=$(ls "$work/one" | tr '\n' ' ')
[ "$(echo "$listed" | wc -w)" = 8 ] || { echo "a release is $listed" >&2; exit 1; }
for program in gotgtd upgraded; do
	grep -q '"purl": "pkg:golang/github.com/spf13/cobra@' "$work/one/$program"-1.2.3-*.cdx.json || { echo "$program's SBOM lacks a library" >&2; exit 1; }
done
build() { packaging/build.sh "$1" "$work/$2" >/dev/null; }
deb=$(echo "$work"/one/*.deb) rpm=$(echo "$work"/one/*.rpm)

lintian --allow-root --fail-on error,warning "$deb"

# What only one of the formats has: the places of a licence, a changelog, and of zsh's and lintian's files.
dpkg-deb -c "$deb" | awk '$1 !~ /^d/ {print substr($6, 2)}' | sort >"$work/deb"
rpm -qpl --noartifact "$rpm" 2>/dev/null | sort >"$work/all"
rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$rpm" 2>/dev/null | awk '$1 !~ /^d/ {print $2}' | sort >"$work/rpm"
diff "$work/deb" "$work/rpm" | sed -n 's/^[<>] //p' | sort >"$work/differ"
cat >"$work/want" <<-'END'
	/usr/share/licenses/gotgtd/LICENSE
	/usr/share/lintian/overrides/gotgtd
	/usr/share/zsh/vendor-completions/_gotgtd
	/usr/share/zsh/vendor-completions/_upgraded
END
diff "$work/want" "$work/differ" || { echo "the packages do not have the same files" >&2; exit 1; }

version() { dpkg-deb -f "$deb" Version; }
[ "$(version)" = 1.2.3 ] || { echo "v1.2.3 became $(version)" >&2; exit 1; }
build 0a1b2c3-dirty commit
[ "$(dpkg-deb -f "$work"/commit/*.deb Version)" = 0~0a1b2c3+dirty ] || { echo "a commit without a tag: $(ls "$work/commit")" >&2; exit 1; }
build v1.2.3-4-gabc after
packaging/verify-rpm.sh "$rpm" "$(echo "$work"/after/*.rpm)"
for newer in "1.2.3 0~0a1b2c3+dirty" "$(dpkg-deb -f "$work"/after/*.deb Version) 1.2.3" "1.2.4 $(dpkg-deb -f "$work"/after/*.deb Version)"; do
	dpkg --compare-versions "${newer% *}" gt "${newer#* }" || { echo "$newer: the first is not the newer one" >&2; exit 1; }
done
