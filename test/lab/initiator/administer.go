// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// administer changes what gotgtd serves by its commands, under a mounted file system: it
// grows, another disk comes and goes, and what would put another disk in its place is
// refused. It has to come last: the commands change the configuration by themselves.
func (t *trial) administer(ctx context.Context) {
	m := t.machines[0]
	const size = 4 * onlineSize << 20
	var device, added, sid string
	ask := func(ctx context.Context, command ...string) error {
		return t.upgrades.exclusively(func() error {
			_, err := t.target.Ask(ctx, command...)
			return err
		})
	}
	on := func(ctx context.Context, script string) error {
		_, err := m.Run(ctx, fmt.Sprintf("set -eu; dev=%s; added=%s; mnt=/mnt; %s", device, added, script))
		return err
	}
	_ = t.step(ctx, "by command: login, mkfs, mount, write", func(ctx context.Context) (err error) {
		if t.lab.Short { // its session is still that of grow
			if err := m.Logout(ctx, onlineTarget, portal1); err != nil {
				return err
			}
		}
		if device, err = t.login(ctx, m, onlineTarget, 1, digests); err != nil {
			return err
		}
		if sid, err = sessionID(ctx, m, onlineTarget, portal1); err != nil {
			return err
		}
		return on(ctx, "mkfs.ext4 -q -F $dev; mount $dev $mnt; dd if=/dev/urandom of=$mnt/kept bs=1M count=8 conv=fsync status=none; sha256sum $mnt/kept >/run/kept.sum")
	}) && t.step(ctx, "by command: lun resize, and the file system grows", func(ctx context.Context) error {
		if err := errors.Join(ask(ctx, "lun", "resize", onlineTarget, "1", strconv.Itoa(size)), rescan(ctx, m)); err != nil {
			return err
		}
		return on(ctx, fmt.Sprintf("[ $(blockdev --getsize64 $dev) = %d ]; resize2fs $dev; sha256sum -c /run/kept.sum", size))
	}) && t.step(ctx, "by command: lun add, and it can be written and read", func(ctx context.Context) (err error) {
		path := filepath.Join(t.target.Dir(), "added.img")
		if err := errors.Join(ask(ctx, "lun", "add", onlineTarget, path, "size=32MiB", "create=true", "--lun", "4"), rescan(ctx, m)); err != nil {
			return err
		}
		if added, err = m.Device(ctx, onlineTarget, portal1, 4); err != nil {
			return err
		}
		return on(ctx, "head -c 1048576 /dev/urandom >/run/new; dd if=/run/new of=$added bs=64k oflag=direct status=none; dd if=$added bs=64k count=16 iflag=direct status=none | cmp - /run/new")
	}) && t.step(ctx, "the disk that is mounted can't be exchanged, removed or made smaller", func(ctx context.Context) error {
		other := filepath.Join(t.target.Dir(), "other.img")
		if err := os.WriteFile(other, make([]byte, size), 0o600); err != nil {
			return err
		}
		for _, command := range [][]string{
			{"lun", "set", onlineTarget, "1", "path=" + other},
			{"lun", "set", onlineTarget, "1", "serial=another"},
			{"lun", "remove", onlineTarget, "1"},
			{"target", "remove", onlineTarget},
		} {
			if err := on(ctx, "dd if=/dev/urandom of=$mnt/more bs=64k count=1 conv=fsync status=none"); err != nil {
				return err
			}
			if err := ask(ctx, command...); err == nil {
				return fmt.Errorf("%v went through", command)
			} else if !strings.Contains(err.Error(), "LUN 1") {
				return fmt.Errorf("%v: the reason does not name the disk: %w", command, err)
			}
		}
		return errors.Join(t.upgrades.now(ctx), on(ctx, "sha256sum -c /run/kept.sum; echo 1 >/sys/block/${added##*/}/device/delete; udevadm settle"))
	}) && t.step(ctx, "by command: a disk is masked, one is removed by force, and the file system is whole", func(ctx context.Context) error {
		err := errors.Join(
			ask(ctx, "access", "add", onlineTarget, "iqn.2015-02.com.stu31:nobody", "--lun", "4", "--force"), rescan(ctx, m),
			on(ctx, "[ ! -e "+lab.DevicePath(onlineTarget, portal1, 4)+" ]"),
			ask(ctx, "lun", "remove", onlineTarget, "4", "--force"), rescan(ctx, m))
		return errors.Join(err, on(ctx, "umount $mnt; e2fsck -f -n $dev"))
	}) && t.provoke(ctx, "by command: session end, which the initiator answers with a new login", sessionEnds(m, sid), func(ctx context.Context) error {
		return t.endSession(ctx, m, ask)
	})
}

// sessionEnds matches the one line that a machine logs of a session that its target has asked it
// to end: its initiator has made it anew.
func sessionEnds(m *lab.Machine, sid string) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`^%[1]s: \[ *[0-9.]+\] %[1]s iscsid\[\d+\]: connection%[2]s:0 is operational after recovery \(\d+ attempts\)$`, m.Name(), sid))
}

// handle returns the TSIH of the session with a target.
func (t *trial) handle(ctx context.Context, iqn string) (int, error) {
	out, err := t.target.Ask(ctx, "sessions")
	if err != nil {
		return 0, err
	}
	var sessions []struct {
		Target string `json:"target"`
		TSIH   int    `json:"tsih"`
	}
	if err := json.Unmarshal([]byte(out), &sessions); err != nil {
		return 0, fmt.Errorf("can't read gotgtd's sessions: %w", err)
	}
	for _, s := range sessions {
		if s.Target == iqn {
			return s.TSIH, nil
		}
	}
	return 0, fmt.Errorf("gotgtd has no session with %s", iqn)
}

// endSession ends the machine's session with the target whose logical units change.
func (t *trial) endSession(ctx context.Context, m *lab.Machine, ask func(context.Context, ...string) error) error {
	before, err := t.handle(ctx, onlineTarget)
	if err != nil {
		return err
	}
	if err := ask(ctx, "session", "end", strconv.Itoa(before)); err != nil {
		return err
	}
	return peer.Until(ctx, func() error {
		now, err := t.handle(ctx, onlineTarget)
		if err == nil && now == before {
			err = errors.New("the session is still there")
		}
		if err != nil {
			return err
		}
		_, err = m.Run(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=4k count=1 iflag=direct status=none", lab.DevicePath(onlineTarget, portal1, 1)))
		return err
	})
}
