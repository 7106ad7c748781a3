// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// A record is something that is replaced as a whole: it is as acknowledged last, or as what has
// been asked for since.
type record[T comparable] struct {
	acked, asked T
}

func (r *record[T]) ask(v T) { r.asked = v }
func (r *record[T]) ack()    { r.acked = r.asked }

// found checks what is there, which counts as acknowledged from then on.
func (r *record[T]) found(what string, v T) error {
	acked, asked := r.acked, r.asked
	r.acked, r.asked = v, v
	if v != acked && v != asked {
		return fmt.Errorf("%s: it is %+v, was acknowledged as %+v and asked for as %+v", what, v, acked, asked)
	}
	return nil
}

// reservation is what is there of the LUN for it after a power cut: the key of the one registration, and
// the type of the reservation that it holds, 0 for none. It is zero if APTPL was not set.
type reservation struct {
	key  uint64
	kind uint8
}

const (
	actionRegister    = 0x06 // REGISTER AND IGNORE EXISTING KEY (SPC-4 6.16.3)
	actionReserve     = 0x01
	actionRelease     = 0x02
	actionReadKeys    = 0x00
	actionReadHolder  = 0x01
	writeExclusive    = 0x01
	aptpl             = 0x01
	reservationHeader = 8
)

// reserve changes the reservation again and again, mostly with APTPL, until the session ends.
func (s *scene) reserve(ctx context.Context, random *rand.Rand) error {
	lun := initiator.LUN(reserving)
	for ctx.Err() == nil {
		now := s.reservation.acked
		next, cmd, held := now, new(initiator.Command), s.held
		switch n := random.IntN(8); {
		case n == 0 && now.key != 0:
			next = reservation{}
			cmd.ReserveOut(lun, actionRegister, 0, 0, random.Uint64()|1, 0)
		case n < 4 || now.key == 0:
			next = reservation{random.Uint64() | 1, s.held}
			cmd.ReserveOut(lun, actionRegister, 0, 0, next.key, aptpl)
		case now.kind == 0:
			next.kind, held = writeExclusive, writeExclusive
			cmd.ReserveOut(lun, actionReserve, writeExclusive, now.key, 0, 0)
		default:
			next.kind, held = 0, 0
			cmd.ReserveOut(lun, actionRelease, writeExclusive, now.key, 0, 0)
		}
		s.reservation.ask(next)
		switch err := s.ask(ctx, cmd); {
		case err == nil:
			s.reservation.ack()
			s.held = held
			s.counts.add("PERSISTENT RESERVE OUT")
		case s.registrar.Err() != nil && s.off.Load():
			return nil
		default:
			return fmt.Errorf("a reservation: %w: %w", errRefused, err)
		}
	}
	return nil
}

// ask runs a command of the registrar's.
func (s *scene) ask(ctx context.Context, cmd *initiator.Command) error {
	u := unit{session: s.registrar}
	return u.do(ctx, cmd)
}

// checkReservation compares the reservation with what it may be.
func (s *scene) checkReservation(ctx context.Context) error {
	var found reservation
	keys, holder := make([]byte, 64), make([]byte, 64)
	lun := initiator.LUN(reserving)
	if err := s.ask(ctx, new(initiator.Command).ReserveIn(lun, actionReadKeys, keys)); err != nil {
		return fmt.Errorf("can't read the keys: %w", err)
	}
	if err := s.ask(ctx, new(initiator.Command).ReserveIn(lun, actionReadHolder, holder)); err != nil {
		return fmt.Errorf("can't read the reservation: %w", err)
	}
	switch n := binary.BigEndian.Uint32(keys[4:]); n {
	case 0:
	case 8:
		found.key = binary.BigEndian.Uint64(keys[reservationHeader:])
	default:
		return fmt.Errorf("there are %d registrations of one initiator port", n/8)
	}
	if binary.BigEndian.Uint32(holder[4:]) > 0 {
		found.kind = holder[reservationHeader+13] & 0x0f
	}
	s.held = found.kind
	return s.reservation.found("the reservation", found)
}

// settings are what is changed of the configuration by commands.
type settings struct {
	alias string
	size  int64  // of the LUN that grows, in bytes
	extra string // LUNs of the other target, in order; "none" if there is no target
}

// changesOfConfiguration is what they are called in the report.
const changesOfConfiguration = "commands that change the configuration"

// noExtra is the settings' extra without that target.
const noExtra = "none"

// configure changes the configuration by commands again and again, until the machine is off. Each is an
// upgrade, and takes as much time under emulation as some hundred commands of an initiator's.
func (s *scene) configure(ctx context.Context, random *rand.Rand) error {
	for {
		select {
		case <-time.After(time.Duration(random.IntN(int(time.Second)))):
		case <-ctx.Done():
			return nil
		}
		next, command := s.change(random)
		s.settings.ask(next)
		out, err := s.upgrading(ctx, programs+"gotgtd "+command+" --control "+controlFile)
		switch {
		case err == nil:
			s.settings.ack()
			s.counts.add(changesOfConfiguration)
		case s.off.Load() || ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("gotgtd %s: %w: %w\n%s", command, errRefused, err, out)
		}
	}
}

// upgrading runs a command that upgrades gotgtd, and runs it again if the upgrade was rolled back: under
// emulation, and with all this I/O, its pause may reach the limit.
func (s *scene) upgrading(ctx context.Context, command string) (out string, err error) {
	for range 1 + maxRolledBack {
		out, err = s.machine.run(context.WithoutCancel(ctx), command)
		if err == nil || !lab.RolledBack(out) {
			break
		}
		s.lab.Mark("upgrade rolled back")
	}
	return out, err
}

// maxRolledBack is how many times in a row an upgrade may be rolled back.
const maxRolledBack = 3

// change chooses what is changed next, and the command for it.
func (s *scene) change(random *rand.Rand) (next settings, command string) {
	next = s.settings.acked
	switch n := random.IntN(4); {
	case n == 0 && next.size < grownSize:
		next.size += growth
		return next, fmt.Sprintf("lun resize %s %d %d", peer.IQN, growing, next.size)
	case n == 1 && next.extra == noExtra:
		next.extra = ""
		return next, "target add " + extraTarget + " access.addresses=172.16.31.0/24"
	case n == 1 && next.extra == "":
		next.extra = " 1"
		return next, "lun add " + extraTarget + " /mnt/ext4/extra size=1MiB create=true"
	case n == 1:
		next.extra = noExtra
		return next, "target remove " + extraTarget
	}
	s.changes++
	next.alias = fmt.Sprintf("change-%d", s.changes)
	return next, fmt.Sprintf("target set %s alias=%s", peer.IQN, next.alias)
}

// checkConfiguration compares what is served with what it may be, and its identities with those of
// before.
func (s *scene) checkConfiguration(ctx context.Context) error {
	st, err := s.show(ctx)
	if err != nil {
		return err
	}
	found := settings{extra: noExtra}
	var errs []error
	for _, t := range st.Targets {
		errs = append(errs, s.identity(t.Name, fmt.Sprintf("TID %d", t.TID)))
		if t.Name == extraTarget {
			found.extra = ""
		} else {
			found.alias = t.Alias
		}
		for _, u := range t.LUNs {
			if u.Type != "disk" {
				continue
			}
			what := fmt.Sprintf("%s LUN %d", t.Name, u.LUN)
			errs = append(errs, s.identity(what, u.ID+" "+u.NAA))
			if u.Error != "" || u.Lost != "" {
				errs = append(errs, fmt.Errorf("%s: %s%s", what, u.Error, u.Lost))
			}
			switch {
			case t.Name == extraTarget:
				found.extra += fmt.Sprintf(" %d", u.LUN)
			case u.LUN == growing:
				found.size = u.Size
			}
		}
	}
	errs = append(errs, s.settings.found("the configuration", found))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	i := slices.IndexFunc(s.units, func(u *unit) bool { return u.lun == growing })
	s.units[i].grow(found.size)
	return nil
}

// identity checks that what something is known by is what it was.
func (s *scene) identity(what, is string) error {
	was, known := s.identities[what]
	s.identities[what] = is
	if known && was != is {
		return fmt.Errorf("%s is %s, and was %s", what, is, was)
	}
	return nil
}

// checkFolder looks at the files in which gotgtd keeps its state, before it runs: none is empty but
// one that was being written aside. What each of them says is seen when gotgtd serves.
func (s *scene) checkFolder(ctx context.Context) error {
	out, err := s.machine.run(ctx, "find /mnt/state -type f -size 0 ! -name '*.new' ! -name '*.tmp'")
	if out = strings.TrimSpace(out); err == nil && out != "" {
		err = &brokenPromise{fmt.Errorf("files are empty: %s", out)}
	}
	return err
}
