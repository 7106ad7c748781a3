// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"time"
)

// State is what a supervised service is doing. It changes in move alone, to what
// stands behind the arrow:
//
//	stopped   ──► starting, stopped
//	starting  ──► serving, waiting, stopping
//	serving   ──► reloading, waiting, stopping
//	reloading ──► serving, waiting, stopping, starting, stopped
//	stopping  ──► starting, stopped, stopping
//	waiting   ──► starting, stopped
//
// A service begins in stopped, and goes on to starting at once. READY=1 leads
// from starting and reloading to serving, a failed reload there too. Death and a
// failed start lead to waiting. A stop leads to stopping, and from there on a
// restart to starting, unless nothing is left to be stopped.
type State string

// The states.
const (
	Stopped   State = "stopped"   // nobody wants it to run
	Starting  State = "starting"  // a process runs that is not ready yet
	Serving   State = "serving"   // ready
	Reloading State = "reloading" // being replaced; still served by the old generation
	Stopping  State = "stopping"  // asked to end
	Waiting   State = "waiting"   // dead, and started anew when the delay is over
)

var moves = map[State][]State{
	Stopped:   {Starting, Stopped},
	Starting:  {Serving, Waiting, Stopping},
	Serving:   {Reloading, Waiting, Stopping},
	Reloading: {Serving, Waiting, Stopping, Starting, Stopped},
	Stopping:  {Starting, Stopped, Stopping},
	Waiting:   {Starting, Stopped},
}

// move takes the service to another state, false if it can't go there. That
// would be a fault of the supervisor's, and is logged; the service that it holds is
// not to suffer for it.
func (s *Service) move(to State) bool {
	if !slices.Contains(moves[s.state], to) {
		s.log.Error("impossible change of state refused", "from", string(s.state), "to", string(to))
		return false
	}
	s.state = to
	return true
}

// busy reports whether something is under way that ends by itself.
func (s *Service) busy() bool {
	return s.state == Starting || s.state == Reloading || s.state == Stopping
}

// settle makes the transition to a state in which the service stays, and
// answers those who wait for it.
func (s *Service) settle(state State, err error) {
	if s.state == Reloading {
		s.countReload(err)
	}
	s.move(state)
	s.deadline = time.Time{}
	s.known, s.orphans = nil, nil
	s.answerAsked(err)
}
