#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# deps.sh SET: makes sure that the programs which SET (run, quick, test, bench, lab) uses are there.
# As root on Debian it installs the missing ones; otherwise it names them and fails.
set -eu

# Each entry is PROGRAM:PACKAGE; a PROGRAM with a slash is a file that must exist.
run='mke2fs:e2fsprogs busybox:busybox-static'
quick='iscsi-test-cu:libiscsi-bin tmux:tmux /lib/systemd/systemd-journald:systemd
	man:man-db qemu-io:qemu-utils nbdkit:nbdkit'
bench='iscsi-perf:libiscsi-bin qemu-img:qemu-utils tgtd:tgt istgt:istgt
	/usr/share/doc/qemu-block-extra:qemu-block-extra'
tests="$run
	iscsi-test-cu:libiscsi-bin qemu-img:qemu-utils tgtd:tgt
	/usr/share/doc/qemu-block-extra:qemu-block-extra
	/usr/lib/ocf/resource.d/heartbeat/iSCSITarget:resource-agents
	e2fsck:e2fsprogs systemd-analyze:systemd /lib/systemd/systemd-journald:systemd tmux:tmux prometheus:prometheus chromium:chromium nginx:nginx-light lintian:lintian rpm:rpm
	podman:podman runc:runc man:man-db nbdkit:nbdkit
	gcc:gcc /usr/include/stdlib.h:libc6-dev /usr/include/rbd/librbd.h:librbd-dev"
lab="$run
	qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap
	modprobe:kmod cpio:cpio xz:xz-utils ssh:openssh-client e2fsck:e2fsprogs ip:iproute2 tgtd:tgt"

case ${1-} in
run) want=$run ;;
quick) want=$quick ;;
test) want=$tests ;;
bench) want=$bench ;;
lab) want=$lab ;;
*) echo "usage: deps.sh run|quick|test|bench|lab" >&2; exit 2 ;;
esac

# Debian keeps these out of an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

lacking() {
	for entry in $want; do
		program=${entry%%:*}
		case $program in
		/*) [ -e "$program" ] ;;
		*) command -v "$program" >/dev/null 2>&1 ;;
		esac || echo "${entry##*:}"
	done | sort -u | tr '\n' ' '
}

packages=$(lacking)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "These packages are missing: $packages" >&2
	echo "As root: apt-get install --no-install-recommends $packages" >&2
	exit 1
fi

echo "Installing $packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM # by way of the trap for EXIT
export DEBIAN_FRONTEND=noninteractive

# apt OPERATION...: apt-get, which waits up to 10 minutes while another program has one of its
# locks: a fresh machine runs unattended upgrades. apt-get's own DPkg::Lock::Timeout is for dpkg's
# lock only, not for that of the package lists.
apt() {
	deadline=$(($(date +%s) + 600))
	said=
	until LC_ALL=C apt-get "$@" >"$log" 2>&1; do
		lock=$(grep -m 1 'Could not get lock' "$log") && [ "$(date +%s)" -lt "$deadline" ] || return 1
		[ -n "$said" ] || echo "Waiting for apt, up to 10 minutes: $lock"
		said=yes
		sleep 2
	done
}

# A test machine needs the programs, not their services.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	trap 'rm -f "$log" /usr/sbin/policy-rc.d' EXIT
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
fi
# shellcheck disable=SC2086 # a list of words
if ! { apt update && apt install -y --no-install-recommends $packages; }; then
	tail -n 20 "$log" >&2
	echo "Could not install $packages" >&2
	exit 1
fi
packages=$(lacking)
[ -z "$packages" ] || { echo "Installed, and yet not found: $packages" >&2; exit 1; }
