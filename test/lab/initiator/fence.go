// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/test/lab"
)

// registrantsOnly is the type of a reservation, WRITE EXCLUSIVE - REGISTRANTS ONLY (SPC-4 5.12.2).
const registrantsOnly = "--prout-type=5"

// member is a machine of a cluster, with the shared disk's device, the machine's key and the
// number of its own 4 KiB block.
type member struct {
	*lab.Machine
	device, key string
	block       int
}

// persist sends a PERSISTENT RESERVE command.
func (m *member) persist(ctx context.Context, arguments string) (string, error) {
	// The kernel takes in what a unit attention has to tell, if it is the kernel that
	// sends the next command.
	return m.Run(ctx, fmt.Sprintf("dd if=%[1]s of=/dev/null bs=4k count=1 iflag=direct status=none && sg_persist %[2]s %[1]s", m.device, arguments))
}

// write writes the machine's block of the shared disk, and reads it again.
func (m *member) write(ctx context.Context) error {
	_, err := m.Run(ctx, fmt.Sprintf(`set -eu; head -c 4096 /dev/urandom >/run/block
		dd if=/run/block of=%[1]s bs=4k seek=%[2]d oflag=direct conv=notrunc status=none
		dd if=%[1]s bs=4k skip=%[2]d count=1 iflag=direct status=none | cmp - /run/block`, m.device, m.block))
	return err
}

// fenced returns an error unless a write ends with a reservation conflict, and a read does not.
func (m *member) fenced(ctx context.Context) error {
	out, err := m.Run(ctx, fmt.Sprintf("LC_ALL=C dd if=/dev/zero of=%s bs=4k count=1 seek=1 oflag=direct conv=notrunc", m.device))
	// The kernel's errno for the status RESERVATION CONFLICT is EBADE.
	if err == nil || !strings.Contains(out, "Invalid exchange") {
		return fmt.Errorf("%s's write did not end with a reservation conflict: %w\n%s", m.Name(), err, out)
	}
	_, err = m.Run(ctx, fmt.Sprintf("dd if=%s of=/dev/null bs=4k count=1 iflag=direct status=none", m.device))
	return err
}

// keys returns an error unless these are the registered keys.
func (m *member) keys(ctx context.Context, want ...string) error {
	out, err := m.persist(ctx, "--in --read-keys")
	if err != nil {
		return err
	}
	var keys []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "0x") {
			keys = append(keys, line)
		}
	}
	if strings.Join(keys, " ") != strings.Join(want, " ") {
		return fmt.Errorf("the keys %q are registered, and not %q:\n%s", keys, want, out)
	}
	return nil
}

// fence has two machines exclude each other from a disk.
func (t *trial) fence(ctx context.Context) {
	one, two := &member{Machine: t.machines[0], key: "0x1", block: 1}, &member{Machine: t.machines[1], key: "0x2", block: 2}
	members := []*member{one, two}
	each := func(ctx context.Context, f func(context.Context, *member) error) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, m := range members {
			group.Go(func() error { return f(ctx, m) })
		}
		return group.Wait()
	}
	bothWrite := func(ctx context.Context) error {
		return each(ctx, func(ctx context.Context, m *member) error { return m.write(ctx) })
	}
	ok := t.step(ctx, "fence: two machines log in to one disk", func(ctx context.Context) error {
		return each(ctx, func(ctx context.Context, m *member) (err error) {
			if m.device, err = t.login(ctx, m.Machine, sharedTarget, 1, digests); err != nil {
				return err
			}
			return m.write(ctx)
		})
	})
	if !ok {
		return
	}
	_ = t.step(ctx, "fence: both register, host1 reserves for registrants only; an upgrade; both write", func(ctx context.Context) error {
		for _, m := range members {
			if _, err := m.persist(ctx, "--out --register --param-sark="+m.key); err != nil {
				return err
			}
		}
		if _, err := one.persist(ctx, "--out --reserve --param-rk=0x1 "+registrantsOnly); err != nil {
			return err
		}
		return errors.Join(t.upgrades.now(ctx), bothWrite(ctx), two.keys(ctx, "0x1", "0x2"))
	}) &&
		t.fenceOne(ctx, "fence: host2 preempts and aborts: host1's writes fail, also after an upgrade", one, two) &&
		t.step(ctx, "fence: host1 registers again; both write", func(ctx context.Context) error {
			_, err := one.persist(ctx, "--out --register --param-sark=0x1")
			return errors.Join(err, bothWrite(ctx))
		}) &&
		t.fenceOne(ctx, "fence: host1 preempts and aborts: host2's writes fail, also after an upgrade", two, one) &&
		t.step(ctx, "fence: host1 clears; both write; logout", func(ctx context.Context) error {
			_, err := one.persist(ctx, "--out --clear --param-rk=0x1")
			return errors.Join(err, bothWrite(ctx), each(ctx, func(ctx context.Context, m *member) error {
				return m.Logout(ctx, sharedTarget, portal1)
			}))
		})
}

// fenceOne has a winner fence a loser that is writing.
func (t *trial) fenceOne(ctx context.Context, name string, loser, winner *member) bool {
	lines := regexp.MustCompile(`^` + regexp.QuoteMeta(loser.Name()) + `: .*(reservation conflict|\b` + filepath.Base(loser.device) + `\b)`)
	return t.provoke(ctx, name, lines, func(ctx context.Context) error {
		// It writes until it is told not to.
		writer, err := loser.Start(fmt.Sprintf("while LC_ALL=C dd if=/dev/zero of=%s bs=4k count=1 seek=1 oflag=direct conv=notrunc 2>&1; do echo written; done", loser.device), func(string) {})
		if err != nil {
			return err
		}
		_, err = winner.persist(ctx, fmt.Sprintf("--out --preempt-abort --param-rk=%s --param-sark=%s %s", winner.key, loser.key, registrantsOnly))
		select {
		case <-writer.Done():
		case <-ctx.Done():
			err = errors.Join(err, context.Cause(ctx))
		}
		return errors.Join(err, writer.Stop(), winner.write(ctx), loser.fenced(ctx), t.upgrades.now(ctx),
			loser.fenced(ctx), winner.write(ctx), winner.keys(ctx, winner.key))
	})
}
