// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// login has the initiator log in, makes multipath maps of the disks and mounts one.
func (s *scene) login(ctx context.Context) error {
	if err := s.initiator.PutText(ctx, multipathConfig, "/etc/multipath.conf", 0o644); err != nil {
		return err
	}
	if _, err := s.initiator.Run(ctx, "modprobe -a dm_multipath dm_round_robin dm_service_time && multipathd"); err != nil {
		return err
	}
	if err := s.loginTo(ctx, mailTarget, dbTarget); err != nil {
		return err
	}
	device, err := s.initiator.Device(ctx, mailTarget, s.portal, 2)
	if err != nil {
		return err
	}
	wwid, err := s.initiator.Run(ctx, "/lib/udev/scsi_id -g -d "+device)
	if err != nil {
		return err
	}
	s.root = strings.TrimSpace(wwid)
	return s.mount(ctx, "dd if=/dev/urandom of=/mnt/kept bs=1M count=8 conv=fsync status=none; sha256sum /mnt/kept >/run/kept.sum")
}

// loginTo logs in to targets, and waits until all their disks are maps.
func (s *scene) loginTo(ctx context.Context, targets ...string) error {
	for _, iqn := range targets {
		var settings []string
		if iqn == mailTarget {
			settings = []string{"node.session.auth.authmethod=CHAP", "node.session.auth.username=" + chapUser, "node.session.auth.password=" + chapSecret}
		}
		if err := s.initiator.Login(ctx, iqn, s.portal, settings...); err != nil {
			return err
		}
	}
	return s.mapped(ctx)
}

// mapped waits until each disk is the active path of a map.
func (s *scene) mapped(ctx context.Context) error {
	return peer.Until(ctx, func() error {
		_, err := s.initiator.Run(ctx, `udevadm settle; for d in /dev/disk/by-path/ip-*; do
	d=$(readlink -f $d); map=$(multipathd show paths raw format '%d %m %t %o' | sed -n "s/^${d##*/}  *\(.*\)  *active  *running *$/\1/p")
	[ -b /dev/mapper/$map ] && [ -n "$map" ] || { multipathd show paths raw format '%d %m %t %o'; exit 1; }
done`)
		return err
	})
}

// mount mounts the file system and does something on it.
func (s *scene) mount(ctx context.Context, script string) error {
	_, err := s.initiator.Run(ctx, fmt.Sprintf("set -eu; mount /dev/mapper/%s /mnt; %s", s.root, script))
	return err
}

// writes uses the file system that is mounted, past every cache.
func (s *scene) writes(ctx context.Context) error {
	_, err := s.initiator.Run(ctx, `set -eu; dd if=/dev/urandom of=/mnt/more bs=1M count=2 conv=fsync status=none
echo 1 >/proc/sys/vm/drop_caches; sha256sum -c /run/kept.sum`)
	return err
}

// noGrief is true as long as the kernel has not logged that the file system or the map below
// has lost anything.
const noGrief = `journalctl --sync; ! journalctl -q --no-pager -k -o short-monotonic | grep -iE 'i/o error.*\bdm-|ext4-fs (error|warning)|remounting'`

// unharmed does what takes the target away and brings one back, with the file system in use:
// the initiator logs in again by itself, and nothing is lost.
func (s *scene) unharmed(ctx context.Context, event string, f func(context.Context) error) error {
	watch, err := s.initiator.Watch(ctx)
	if err != nil {
		return err
	}
	if err := s.writes(ctx); err != nil {
		return err
	}
	s.Mark(event)
	start := time.Now()
	if err := f(ctx); err != nil {
		return err
	}
	if err := s.writes(ctx); err != nil {
		return err
	}
	s.Figure(event+", until the file system could be written again", "%.1f s", time.Since(start).Seconds())
	lines, err := watch.Disturbances(ctx)
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return errors.New("the initiator has not noticed that its target was away")
	}
	if _, err := s.initiator.Run(ctx, noGrief); err != nil {
		return err
	}
	return errors.Join(watch.Recovered(ctx), s.mapped(ctx))
}

// note remembers the identities.
func (s *scene) note(ctx context.Context) (err error) {
	if s.before, err = identitiesOf(ctx, s.initiator); err != nil {
		return err
	}
	for _, line := range s.before {
		if strings.HasPrefix(line, "multipath ") {
			s.Printf("%s", line)
		}
	}
	return s.before.are(4)
}

// kept compares them.
func (s *scene) kept(ctx context.Context) error {
	now, err := identitiesOf(ctx, s.initiator)
	if err != nil {
		return err
	}
	return errors.Join(s.before.kept(now), now.are(4))
}

// added compares them after two disks were added.
func (s *scene) added(ctx context.Context) error {
	now, err := identitiesOf(ctx, s.initiator)
	if err != nil {
		return err
	}
	return errors.Join(s.before.kept(now), now.are(6))
}

// mustChange does, with the initiator logged out, what has to give it other disks.
func (s *scene) mustChange(ctx context.Context, f func(context.Context) error) error {
	if err := s.anew(ctx, f); err != nil {
		return err
	}
	err := s.added(ctx)
	if !errors.Is(err, errChanged) {
		return errors.Join(errors.New("the comparison has not found any change"), err)
	}
	var wwids []string
	for line := range strings.Lines(err.Error()) {
		if strings.Contains(line, ": scsi_id ") {
			wwids = append(wwids, strings.TrimSpace(line))
		}
	}
	if len(wwids) == 0 {
		return fmt.Errorf("the comparison has found no other WWID: %w", err)
	}
	s.Printf("found, among others:\n%s", strings.Join(wwids, "\n"))
	return nil
}

// mustStay does, with the initiator logged out, what has to give it the disks that it knows: check
// looks whether it is so. The file system is mounted again.
func (s *scene) mustStay(ctx context.Context, f, check func(context.Context) error) error {
	if err := s.anew(ctx, f); err != nil {
		return err
	}
	return errors.Join(check(ctx), s.mount(ctx, "sha256sum -c /run/kept.sum"))
}

// anew does something with the initiator logged out, so that nothing is left of what it knew.
func (s *scene) anew(ctx context.Context, f func(context.Context) error) error {
	if err := s.leave(ctx); err != nil {
		return err
	}
	if err := f(ctx); err != nil {
		return err
	}
	return s.enter(ctx)
}

// leave takes mount, maps and sessions away.
func (s *scene) leave(ctx context.Context) error {
	_, err := s.initiator.Run(ctx, `set -eu
if mountpoint -q /mnt; then umount /mnt; fi
udevadm settle; multipath -F; iscsiadm -m node --logoutall=all; udevadm settle
[ -z "$(ls /sys/block | grep ^sd)" ]`)
	return err
}

// enter logs in to every target that is known.
func (s *scene) enter(ctx context.Context) error {
	if _, err := s.initiator.Run(ctx, "iscsiadm -m node --loginall=all"); err != nil {
		return err
	}
	return s.mapped(ctx)
}

// fsck checks the file system.
func (s *scene) fsck(ctx context.Context) error {
	_, err := s.initiator.Run(ctx, fmt.Sprintf("set -eu; sha256sum -c /run/kept.sum; umount /mnt; e2fsck -fn /dev/mapper/%s", s.root))
	return err
}
