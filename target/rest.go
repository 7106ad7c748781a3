// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gotgtd/gotgtd/internal/headroom"
)

// A successor takes about as much before it has anything, and the snapshot's small parts.
const roomBeside = 32 << 20

// available is what there is; other in tests.
var available = func() headroom.Memory { return headroom.Available("/") }

// Room refuses an upgrade for which there is not enough memory, before anything is frozen: the kernel would
// end both processes. What moves in the pause is there three times: here, on its way, and there.
func (g *giver) Room(follows bool) error {
	used := g.server.node.MemoryUsed()
	need := used
	if follows {
		need = min(used, inPause)
	}
	need = 2*need + roomBeside
	m := available()
	if m.Bytes < need {
		g.server.node.TrimMemory()
		m = available()
	}
	if m.Bytes < need {
		return fmt.Errorf("it would take %d MiB of memory, and %s has %d MiB left; %d MiB are used for initiators: raise the limit, or end the sessions that hold the most (gotgtd session end)",
			need>>20, m.Of, m.Bytes>>20, used>>20)
	}
	return nil
}

// dropRest lets go of what follows, if Start has not been called.
func (t *taker) dropRest() {
	if t.rest != nil {
		t.rest.Close()
	}
}

// follow takes the data that follows, in the background.
func (s *Server) follow(rest *os.File) {
	s.background.Add(1)
	s.rested = make(chan struct{})
	began := time.Now()
	go func() {
		defer s.background.Done()
		defer close(s.rested)
		defer func() { s.restTook = time.Since(began) }()
		stop := context.AfterFunc(s.ctx, func() { rest.Close() })
		err := s.node.Follow(rest)
		if stop() {
			rest.Close()
		}
		if err != nil {
			s.log.Error("sessions are lost that held much data while they moved here; their initiators log in again", "error", err)
		}
	}()
}

// RestTook returns how long data took that followed after an upgrade to this process. It reports false if none did, and as
// long as it is on its way.
func (s *Server) RestTook() (time.Duration, bool) {
	if s == nil || s.rested == nil {
		return 0, false
	}
	select {
	case <-s.rested:
		return s.restTook, true
	default:
		return 0, false
	}
}

// followed waits until all data that follows has come.
func (s *Server) followed(ctx context.Context) error {
	if s.rested == nil {
		return nil
	}
	select {
	case <-s.rested:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("data of sessions from the upgrade before is still on its way: %w", context.Cause(ctx))
	}
}
