// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"os"
)

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
	go func() {
		defer s.background.Done()
		defer close(s.rested)
		stop := context.AfterFunc(s.ctx, func() { rest.Close() })
		err := s.node.Follow(rest)
		if stop() {
			rest.Close()
		}
		if err != nil {
			s.log.Error("sessions are lost that held much data while they moved here", "error", err)
		}
	}()
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
