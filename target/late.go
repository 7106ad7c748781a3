// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// retryInterval is how often a store that can't be opened is tried again.
const retryInterval = 5 * time.Second

// lateUnit is a logical unit that is not ready.
type lateUnit struct {
	target string
	conf   *config.LUN
	unit   *scsi.LogicalUnit
	store  late
}

// mayBeLate tells whether a logical unit whose store can't be opened is served as not
// ready.
func (s *Server) mayBeLate(target string, c *config.LUN) bool {
	ofProcess := c.Path == "" && !strings.Contains(c.Backend, ":") // nothing outside that could come back
	return !ofProcess &&
		(s.conf.IgnoreErrors || s.options.MayBeLate != nil && s.options.MayBeLate(target, c.Number))
}

// attachLate adds a logical unit whose store can't be opened to a target.
func (s *Server) attachLate(t *served, c *config.LUN, why error) error {
	l := &lateUnit{target: t.conf.Name, conf: c, store: newLate(c)}
	l.store.blame(why)
	var err error
	if l.unit, err = newUnit(c, l.store, s.strangers); err != nil {
		return err
	}
	if err := t.device.Attach(c.Number, l.unit); err != nil {
		return err
	}
	s.log.Error("logical unit not ready: its backing store can't be opened, and is tried again",
		"target", l.target, "lun", c.Number, "error", why, "every", s.retryInterval())
	s.late = append(s.late, l)
	return nil
}

func (s *Server) retryInterval() time.Duration {
	if s.options.RetryInterval > 0 {
		return s.options.RetryInterval
	}
	return retryInterval
}

// startRetrying begins to try again what could not be opened. A successor does
// so when it serves.
func (s *Server) startRetrying() {
	if len(s.late) > 0 {
		s.background.Add(1)
		go s.retry()
	}
}

// retry opens the stores of late units until all are open or the Server closes.
func (s *Server) retry() {
	defer s.background.Done()
	tick := time.NewTicker(s.retryInterval())
	defer tick.Stop()
	for len(s.late) > 0 {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-s.ctx.Done():
			return
		case s.opening <- struct{}{}:
		}
		waiting := s.late[:0:0]
		for _, l := range s.late {
			if !s.openLate(l) {
				waiting = append(waiting, l)
			}
		}
		s.late = waiting
		<-s.opening
	}
}

// openLate tries to open the store of a late unit and reports whether that is
// over and done with.
func (s *Server) openLate(l *lateUnit) bool {
	store, err := s.openStore(l.conf, false, s.paused)
	if err == nil && store.Info().Size < int64(l.conf.BlockSize) {
		err = errors.Join(fmt.Errorf("%q is smaller than one block", l.conf.Path), store.Close())
	}
	if err != nil {
		if l.store.blame(err) && !errors.Is(err, errPaused) {
			s.log.Error("logical unit still not ready: mend what the error names, it is tried again", "target", l.target, "lun", l.conf.Number, "error", err)
		}
		return false
	}
	if l.store.fill(store) != nil { // the logical unit was taken away
		store.Close()
		return true
	}
	l.unit.Arrive()
	s.log.Info("logical unit ready", "target", l.target, "lun", l.conf.Number, "path", l.conf.Path)
	if s.options.Opened != nil {
		s.options.Opened()
	}
	return true
}

// errPaused ends the preallocation of a late store. The next attempt goes on with it.
var errPaused = errors.New("its space is being taken, which goes on after the upgrade")

// paused tells whether an attempt that takes space has to end, since an upgrade or the
// end waits for it.
func (s *Server) paused() error {
	select {
	case <-s.ctx.Done():
		return errPaused
	default:
	}
	if s.holding.Load() > 0 {
		return errPaused
	}
	return nil
}

// holdOpening keeps late stores from being opened, after an attempt that is
// under way has ended.
func (s *Server) holdOpening(ctx context.Context) error {
	s.holding.Add(1)
	defer s.holding.Add(-1)
	select {
	case s.opening <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a backing store is being opened: %w", context.Cause(ctx))
	}
}

// lateReason says why a logical unit is not ready, if it is late.
func lateReason(u *scsi.LogicalUnit) string {
	return lateReasonOf(u.Store())
}
