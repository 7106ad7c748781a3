// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// Control is the suite's negative control: its steps pass if the suite's checks fail
// when tgt is restarted in place of gotgtd's upgrades.
var Control = lab.Suite{Name: "control", Title: "the initiator's checks, with tgt that is restarted", Run: control}

func control(ctx context.Context, l *lab.Lab) error {
	t := &trial{lab: l, machines: []*lab.Machine{l.Machine(lab.MachineOptions{Number: 1})}}
	if err := t.boot(ctx); err != nil {
		return err
	}
	c := &restarts{options: peer.Options{Dir: l.Dir, Address: portal1}}
	defer c.stop()
	err := l.Step(ctx, "tgt serves", func(ctx context.Context) error {
		disk := filepath.Join(l.Dir, imageFile(loadTarget, 1))
		c.options.Config = fmt.Sprintf("<target %s>\nbacking-store %s\n</target>\n", loadTarget, disk)
		return errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, otherSize<<20), c.start(ctx))
	})
	if err != nil {
		return err
	}
	// tgt refuses digests unless it is told otherwise.
	if err := t.startLoad(ctx, plain); err != nil {
		return err
	}
	t.step(ctx, "nothing is done, and the checks pass", t.load.Progress)
	rounds := 5
	if l.Short {
		rounds = 2
	}
	l.Step(ctx, "tgt is restarted, and I/O goes on afterwards", func(ctx context.Context) error {
		for range rounds {
			l.Mark("restart")
			c.stop()
			if err := errors.Join(c.start(ctx), t.load.Progress(ctx)); err != nil {
				return err
			}
		}
		return nil
	})
	t.mustFail(ctx, "the check of the machine's log fails", func(ctx context.Context) error { return t.logsSince(ctx, nil) })
	t.mustFail(ctx, "the check of the session fails", t.sameSession)
	l.Step(ctx, "no I/O has failed, after recovery", t.stopLoad)
	return nil
}

// mustFail does a check as a step that passes if the check finds something.
func (t *trial) mustFail(ctx context.Context, name string, check func(context.Context) error) {
	t.lab.Step(ctx, name, func(ctx context.Context) error {
		err := check(ctx)
		switch {
		case errors.Is(err, errDisturbed):
			t.lab.Printf("found: %.2000s", err)
			return nil
		case err == nil:
			return errors.New("the check has found nothing")
		}
		return err
	})
}

// restarts is tgt.
type restarts struct {
	options peer.Options
	tgt     *peer.Tgt // nil: not running
}

func (r *restarts) start(ctx context.Context) (err error) {
	r.tgt, err = peer.StartTgt(ctx, r.options)
	return err
}

func (r *restarts) stop() {
	if r.tgt != nil {
		r.tgt.Kill()
		r.tgt = nil
	}
}
