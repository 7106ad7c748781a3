#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# verify.sh: lintian has nothing to say of the Debian package, both packages have the same
# files, a build can be repeated bit by bit, and a version becomes one that sorts as it should.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { packaging/build.sh "$1" "$work/$2" >/dev/null; }
build v1.2.3 one
build v1.2.3 two
diff -r "$work/one" "$work/two" || { echo "two builds of one commit differ" >&2; exit 1; }
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
for newer in "1.2.3 0~0a1b2c3+dirty" "$(dpkg-deb -f "$work"/after/*.deb Version) 1.2.3" "1.2.4 $(dpkg-deb -f "$work"/after/*.deb Version)"; do
	dpkg --compare-versions "${newer% *}" gt "${newer#* }" || { echo "$newer: the first is not the newer one" >&2; exit 1; }
done
