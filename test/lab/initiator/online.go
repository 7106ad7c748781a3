// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// grow makes the file behind a mounted file system larger, and then the file system.
func (t *trial) grow(ctx context.Context) {
	m := t.machines[0]
	const size = 3 * onlineSize << 20
	var device string
	do := func(ctx context.Context, script string) (string, error) {
		return m.Run(ctx, fmt.Sprintf("set -eu; dev=%s; mnt=/mnt; %s", device, script))
	}
	_ = t.step(ctx, "grow: login, mkfs, mount, write", func(ctx context.Context) (err error) {
		if device, err = t.login(ctx, m, onlineTarget, 1, digests); err != nil {
			return err
		}
		_, err = do(ctx, "mkfs.ext4 -q $dev; mount $dev $mnt; dd if=/dev/urandom of=$mnt/first bs=1M count=8 conv=fsync status=none; sha256sum $mnt/first >/run/first.sum")
		return err
	}) && t.step(ctx, "grow: the file, a reload, iscsiadm -R, blockdev --getsize64", func(ctx context.Context) error {
		if err := os.Truncate(filepath.Join(t.target.Dir(), imageFile(onlineTarget, 1)), size); err != nil {
			return err
		}
		t.serves.grown = size >> 20
		if err := errors.Join(t.upgrades.change(ctx, t.serves), rescan(ctx, m)); err != nil {
			return err
		}
		out, err := do(ctx, "blockdev --getsize64 $dev")
		if err == nil && strings.TrimSpace(out) != fmt.Sprint(size) {
			err = fmt.Errorf("the device has %s bytes, and the file %d", strings.TrimSpace(out), size)
		}
		return err
	}) && t.step(ctx, "grow: resize2fs, fill what is new, compare", func(ctx context.Context) error {
		_, err := do(ctx, fmt.Sprintf(`
			resize2fs $dev
			dd if=/dev/urandom of=$mnt/second bs=1M count=%d conv=fsync status=none
			sha256sum $mnt/second >/run/second.sum
			umount $mnt; mount $dev $mnt
			sha256sum -c /run/first.sum /run/second.sum
			umount $mnt; e2fsck -f -n $dev`, onlineSize+8))
		return err
	})
}

// comeAndGo adds and removes logical units of a target that machines are logged in to.
func (t *trial) comeAndGo(ctx context.Context) {
	m := t.machines[0]
	var device string
	path := func(lun int) string { return lab.DevicePath(onlineTarget, portal1, lun) }
	change := func(ctx context.Context, luns ...int) error {
		t.serves.online = luns
		return t.upgrades.change(ctx, t.serves)
	}
	add := func(ctx context.Context, lun int) (err error) {
		if err := errors.Join(change(ctx, 1, lun), rescan(ctx, m)); err != nil {
			return err
		}
		device, err = m.Device(ctx, onlineTarget, portal1, lun)
		return err
	}
	_ = t.step(ctx, "a logical unit is added: it can be written and read", func(ctx context.Context) error {
		if err := add(ctx, 2); err != nil {
			return err
		}
		_, err := m.Run(ctx, fmt.Sprintf(`set -eu; dev=%s
			dd if=/dev/urandom of=/run/new bs=1M count=4 status=none
			dd if=/run/new of=$dev bs=1M oflag=direct status=none
			dd if=$dev bs=1M count=4 iflag=direct status=none | cmp - /run/new`, device))
		return err
	}) && t.step(ctx, "a logical unit is removed: first here, then there", func(ctx context.Context) error {
		_, err := m.Run(ctx, fmt.Sprintf("echo 1 >/sys/block/%s/device/delete; udevadm settle", filepath.Base(device)))
		t.serves.online = []int{1} // it was written to within the last minute
		if err := errors.Join(err, t.upgrades.force(ctx, t.serves, onlineTarget+" LUN 2"), rescan(ctx, m)); err != nil {
			return err
		}
		_, err = m.Run(ctx, fmt.Sprintf("[ ! -e %s ] && [ -e %s ]", path(2), path(1)))
		return err
	})
	if !t.step(ctx, "another logical unit is added", func(ctx context.Context) error { return add(ctx, 3) }) {
		return
	}
	// What the machine knows of is not there: the one device's I/O fails, no other's.
	lines := regexp.MustCompile(filepath.Base(device) + `\b`)
	_ = t.provoke(ctx, "a logical unit is removed in use, by force: its I/O alone fails", lines, func(ctx context.Context) error {
		if _, err := m.Run(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=4k count=1 iflag=direct", device)); err != nil {
			return err
		}
		t.serves.online = []int{1}
		if err := t.upgrades.force(ctx, t.serves, onlineTarget+" LUN 3"); err != nil {
			return err
		}
		if out, err := m.Run(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=4k count=1 iflag=direct", device)); err == nil {
			return fmt.Errorf("it can be read still:\n%s", out)
		}
		_, err := m.Run(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=4k count=1 iflag=direct && echo 1 >/sys/block/%s/device/delete",
			path(1), filepath.Base(device)))
		return err
	}) && t.step(ctx, "logout from the target that changed", func(ctx context.Context) error { return m.Logout(ctx, onlineTarget, portal1) })
}
