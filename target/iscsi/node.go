// SPDX-License-Identifier: Apache-2.0

// Package iscsi is the session layer of an iSCSI target (RFC 7143) at
// ErrorRecoveryLevel 0: login, negotiation, sessions, connections, tasks and
// task management. It executes nothing itself: commands go to a device server
// (package scsi), which knows nothing of iSCSI.
//
// Who owns what: a [Node] owns its targets and the tables of sessions and
// connections. A session owns command sequencing and the task set. A
// connection owns its byte stream: the input belongs to its reading
// goroutine, the output to whoever flushes it at the time. Each of the three
// has one mutex; they nest in the order session, Node, output, with those of the
// scheduler and of the queue for memory before the output's. With the build tag "ranked"
// that is checked.
package iscsi

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// A Node serves the targets of one daemon.
type Node struct {
	engine

	guesses guess.Failures
	seats   *socket.Seats

	leaveSeats func() // gives them back

	mu       ranked.Mutex // protects the fields below
	targets  map[string]*Target
	order    []*Target // targets by name, for discovery
	groups   []PortalGroup
	auth     Auth // of discovery sessions
	sessions sessionTable
	conns    connTable
	apart    map[uint16]*session // of those, whose data is still to come: Restore's, then Follow's

	rejections rejections
	tally      tally.Tally // has its own lock

	wg       sync.WaitGroup // connections, the liveness loop
	stop     chan struct{}
	stopOnce sync.Once
	beats    atomic.Uint64 // rounds of the liveness loop
}

// SetTargets replaces the targets, portal groups and discovery
// authentication. Sessions keep running: it is for the caller to end those
// whose target is gone or that are no longer allowed. A nil target, or one without a
// device, is left out.
func (n *Node) SetTargets(targets []*Target, groups []PortalGroup, discovery Auth) {
	order := slices.DeleteFunc(slices.Clone(targets), func(t *Target) bool { return t == nil || t.Device == nil })
	slices.SortFunc(order, func(a, b *Target) int { return strings.Compare(a.Name, b.Name) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order, n.groups, n.auth = order, slices.Clone(groups), discovery
	clear(n.targets)
	for _, t := range order {
		n.targets[strings.ToLower(t.Name)] = t
	}
}

// target returns the named target, nil if there is none. Names compare as
// RFC 7143 4.2.7.1 says: normalized to lower case.
func (n *Node) target(name string) *Target {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.targets[strings.ToLower(name)]
}

// ErrClosed is the answer of a Node that is closed.
var ErrClosed = errors.New("iscsi: node is closed")

// sessionList returns the sessions in order of their TSIH.
func (n *Node) sessionList() []*session {
	n.mu.Lock()
	list := make([]*session, 0, len(n.sessions.byTSIH))
	for _, s := range n.sessions.byTSIH {
		list = append(list, s)
	}
	n.mu.Unlock()
	slices.SortFunc(list, func(a, b *session) int { return int(a.tsih) - int(b.tsih) })
	return list
}

// session returns the session with a handle, nil if there is none.
func (n *Node) session(tsih uint16) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions.byTSIH[tsih]
}

func (n *Node) connList() []*conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*conn, 0, len(n.conns.all))
	for c := range n.conns.all {
		list = append(list, c)
	}
	return list
}
