// SPDX-License-Identifier: Apache-2.0

package target

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// openStore opens the backing store of a logical unit. interrupt is asked while space is
// taken for it; its error ends that.
func (s *Server) openStore(c *config.LUN, successor bool, interrupt func() error) (storage.Store, error) {
	o := c.Options
	o.InheritLock, o.Known, o.Progress = successor, s.options.Known, s.progress(c.Path, interrupt)
	backend := cmp.Or(c.Backend, "file")
	store, err := storage.OpenBackend(s.ctx, backend, o)
	if successor && c.Create && errors.Is(err, fs.ErrNotExist) {
		// The file is new, so the predecessor has no lock for it to pass on. If the
		// predecessor does serve a file that was removed from this path, its lock does not
		// belong to the new file, and the upgrade fails.
		o.InheritLock = false
		if store, err = storage.OpenBackend(s.ctx, backend, o); err == nil {
			s.made = append(s.made, madeFile{c.Path, store.Info().ID})
		}
	}
	return store, err
}

// madeFile is a file that a successor has made for a new logical unit.
type madeFile struct{ path, id string }

// removeMade removes the files that a successor has created which does not take over.
// Nothing was written to them.
func (s *Server) removeMade() {
	for _, m := range s.made {
		if id, _, err := storage.Identify(m.path); err != nil || id != m.id {
			continue // somebody has put another there
		}
		if err := os.Remove(m.path); err != nil {
			s.log.Warn("a file that was made is left: remove it", "error", err)
		}
	}
}

// progressInterval is how often the log tells how far a preallocation is.
const progressInterval = 5 * time.Second

// progress returns what logs how far the preallocation of a file is, until interrupt
// returns an error.
func (s *Server) progress(path string, interrupt func() error) func(done, total int64) error {
	var last time.Time
	return func(done, total int64) error {
		if err := interrupt(); err != nil {
			return err
		}
		if now := time.Now(); done == total || now.Sub(last) >= progressInterval {
			last = now
			s.log.Info("preallocating", "path", path, "bytes", done, "of", total)
		}
		return nil
	}
}

// openings tell in the log how far the opening of many backing stores is. A nil one tells nothing.
type openings struct {
	log  *slog.Logger
	of   int // backing stores
	done int
	last time.Time // when it was told, or begun
}

// newOpenings begins to count the backing stores of a configuration.
func newOpenings(log *slog.Logger, conf *config.Config) *openings {
	t := &openings{log: log, last: time.Now()}
	for i := range conf.Targets {
		t.of += len(conf.Targets[i].LUNs)
	}
	return t
}

// opened counts one that was opened, or could not be.
func (t *openings) opened() {
	if t == nil {
		return
	}
	t.done++
	if now := time.Now(); now.Sub(t.last) >= progressInterval {
		t.last = now
		t.log.Info("opening backing stores", "done", t.done, "of", t.of)
	}
}

// newUnit makes the logical unit over an open store.
func newUnit(c *config.LUN, store storage.Store, log *slog.Logger) (*scsi.LogicalUnit, error) {
	return scsi.NewLogicalUnit(scsi.LogicalUnitOptions{
		Store: store, BlockOptions: c.BlockOptions,
		Absent: lateReasonOf(store) != "", Log: log, UnitOptions: c.UnitOptions,
	})
}

func auth(c *config.Auth) iscsi.Auth {
	var a iscsi.Auth
	for _, u := range c.Users {
		a.Users = append(a.Users, iscsi.Account{User: u.User, Secret: string(u.Secret), Binds: u.Binds})
	}
	if o := c.Outgoing; o != nil {
		a.Outgoing = &iscsi.Account{User: o.User, Secret: string(o.Secret)}
	}
	a.Algorithms = c.Algorithms
	return a
}

// resets is whom resets of the target concern.
func resets(c *config.Target) iscsi.ResetScope {
	switch c.TaskManagement {
	case "own":
		return iscsi.ResetsOwn
	case "all":
		return iscsi.ResetsAll
	}
	return iscsi.ResetsAuto
}

// allowed is the target's access list as a function. An initiator that will have to
// prove an account may go on if it can be one of those that the list has.
// The embedding program is asked last, when the account is known.
func (s *Server) allowed(t *config.Target) func(iscsi.Peer) (bool, string) {
	return func(p iscsi.Peer) (bool, string) {
		if t.Access.Allows(p.Addr, p.Initiator, p.Account) || p.Unproven && len(t.Access.Accounts) > 0 {
			return s.authorized(t, p)
		}
		who := "initiator " + p.Initiator
		if p.Account != "" {
			who += fmt.Sprintf(" of account %q", p.Account)
		}
		return false, fmt.Sprintf("%s at %s is not among those allowed: %s", who, p.Addr, strings.Join(t.Access.List(), " "))
	}
}

// masked is the access lists of the target's logical units as a function, nil if
// all are for everyone.
func masked(t *config.Target) func(iscsi.Peer) []uint16 {
	if !slices.ContainsFunc(t.LUNs, func(l config.LUN) bool { return !l.Access.Everyone() }) {
		return nil
	}
	return func(p iscsi.Peer) (numbers []uint16) {
		for i := range t.LUNs {
			if l := &t.LUNs[i]; !l.Access.Allows(p.Addr, p.Initiator, p.Account) {
				numbers = append(numbers, l.Number)
			}
		}
		return numbers
	}
}
