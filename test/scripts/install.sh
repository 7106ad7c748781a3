#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install.sh DESTDIR PREFIX BIN: puts the programs of the folder BIN, units, manual pages and the example
# configuration in place. A configuration that is already there is left alone. What is put in
# place is printed, and noted under PREFIX/lib/gotgtd for uninstall.sh.
set -eu
cd "$(dirname "$0")/../.."
dest=$1 prefix=$2 bin=$3

put() { # MODE DIRECTORY FILE...
	mode=$1 dir=$2
	shift 2
	install -d "$dest$dir"
	for file; do
		install -m "$mode" "$file" "$dest$dir/"
		placed "$dir/$(basename "$file")"
	done
}

# placed FILE: says that it is in place, and notes it.
placed() {
	echo "$dest$1"
	echo "$1" >>"$work/manifest"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put 755 "$prefix/bin" "$bin/gotgtd" "$bin/upgraded"
# tgt's tools are other names of gotgtd, in a folder of their own for PATH.
tools=$prefix/lib/gotgtd/tgt
install -d "$dest$tools"
for tool in tgtadm tgt-admin; do
	ln -sf ../../../bin/gotgtd "$dest$tools/$tool"
	placed "$tools/$tool"
done
# man(1) looks for manuals beside the programs in PATH: those of tgt's tools are theirs.
put 644 "$prefix/lib/gotgtd/tgt/man/man8" docs/man/tgt/*.8
put 644 "$prefix/share/man/man8" docs/man/*.8
put 644 "$prefix/share/man/man5" docs/man/*.5
# README.md is that of docs: the other one begins with the source.
put 644 "$prefix/share/doc/gotgtd" CHANGELOG.md LICENSE docs/*.md docs/*.svg docs/*.png docs/openapi.yaml
put 644 "$prefix/share/doc/gotgtd/examples" docs/examples/*.*
put 644 "$prefix/share/doc/gotgtd/examples/containers" docs/examples/containers/*
# Not among the documents: many systems leave these out.
put 644 "$prefix/share/gotgtd/prometheus" docs/prometheus/*
put 644 "$prefix/share/gotgtd/grafana" docs/grafana/*

# Completions, where each shell looks for those of installed programs.
mkdir "$work/bash" "$work/zsh" "$work/fish" "$work/units"
for program in gotgtd upgraded; do
	"$bin/$program" completion bash >"$work/bash/$program"
	"$bin/$program" completion zsh >"$work/zsh/_$program"
	"$bin/$program" completion fish >"$work/fish/$program.fish"
done
put 644 "$prefix/share/bash-completion/completions" "$work"/bash/*
put 644 "$prefix/share/zsh/site-functions" "$work"/zsh/*
put 644 "$prefix/share/fish/vendor_completions.d" "$work"/fish/*

for unit in systemd/*.service systemd/*.socket; do
	sed "s|/usr/bin/|$prefix/bin/|g" "$unit" >"$work/units/$(basename "$unit")"
done
put 644 "$prefix/lib/systemd/system" "$work/units"/*
for kind in sysusers tmpfiles; do
	for file in systemd/*.$kind systemd/$kind.d/*.conf; do
		[ -e "$file" ] || continue
		install -d "$dest$prefix/lib/$kind.d"
		name=$prefix/lib/$kind.d/$(basename "${file%.*}").conf
		install -m 644 "$file" "$dest$name"
		placed "$name"
	done
done
put 644 "$prefix/lib/gotgtd" "$work/manifest"

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
