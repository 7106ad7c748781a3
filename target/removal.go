// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi"
)

// A removal is a target that is served no more, while its initiators log out and its logical
// units are closed. Other changes go on meanwhile, for that takes as long as initiators do. What
// waits for it are a hand-over, whose snapshot has no place for it, and a target of its name.
type removal struct {
	server   *Server
	target   *served
	sessions []iscsi.SessionInfo // that were logged in
	done     chan struct{}
}

// remove begins a removal, in a change that has begun. [removal.finish] has to be called, when
// that has ended.
func (s *Server) remove(t *served) *removal {
	r := &removal{server: s, target: t, done: make(chan struct{})}
	s.mu.Lock()
	s.targets = slices.DeleteFunc(slices.Clone(s.targets), func(o *served) bool { return o == t })
	s.removals = append(s.removals, r)
	s.mu.Unlock()
	s.publish()
	r.sessions = slices.DeleteFunc(s.node.Sessions(), func(i iscsi.SessionInfo) bool { return i.Target != t.conf.Name })
	return r
}

// finish ends the sessions, as [Server.RemoveTarget] says, and closes the logical units.
func (r *removal) finish(ctx context.Context) error {
	err := r.server.endSessions(ctx, r.sessions, logoutGrace)
	err = errors.Join(err, r.target.dissolve(nil))
	r.server.mu.Lock()
	r.server.removals = slices.DeleteFunc(r.server.removals, func(o *removal) bool { return o == r })
	r.server.mu.Unlock()
	close(r.done)
	return err
}

// finishAll finishes removals, which need not wait for one another.
func finishAll(ctx context.Context, removals []*removal) (errs []error) {
	results := make(chan error)
	for _, r := range removals {
		go func() { results <- r.finish(ctx) }()
	}
	for range removals {
		errs = append(errs, <-results)
	}
	return errs
}

// removing returns the removals of now, of targets of a name, or of all if it is empty.
func (s *Server) removing(name string) []*removal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.removals), func(r *removal) bool { return name != "" && r.target.conf.Name != name })
}

// changeAlone is change for what no removal may disturb either.
func (s *Server) changeAlone() (end func(), err error) {
	end, err = s.change()
	if err == nil {
		s.awaitRemovals()
	}
	return end, err
}

// awaitRemovals waits for the removals that have begun.
func (s *Server) awaitRemovals() {
	for _, r := range s.removing("") {
		<-r.done
	}
}
