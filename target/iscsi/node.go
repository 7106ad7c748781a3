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
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Options configures a [Node]. The zero value is valid.
type Options struct {
	Log             *slog.Logger // nil: slog.Default()
	Limits          NodeLimits
	Workers         int // goroutines for commands that may block; 0: 64
	FastPaths       FastPaths
	TeardownTimeout time.Duration // how long a reinstated session's running commands are waited for; 0: 30 s

	// Opened and Ended, if set, are told of each session with a target: when its first
	// connection has authenticated and before it is answered, and when nothing of
	// it runs any more, with the reason, nil for a logout. Of sessions that
	// have come from another process or gone to one they are not told. They are called
	// on a connection's goroutine, which a freeze waits for.
	Opened func(SessionInfo)
	Ended  func(s SessionInfo, why error)
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Limits.SetDefaults()
	o.Workers = cmp.Or(o.Workers, 64)
	o.TeardownTimeout = cmp.Or(o.TeardownTimeout, 30*time.Second)
	return o
}

// A Target is an iSCSI target node: a name, a device server, and who may log
// in how. It must not change while a Node serves it; [Node.SetTargets]
// replaces it.
type Target struct {
	Name    string // iSCSI name
	Alias   string
	Device  *scsi.Device
	Groups  []uint16 // tags of the portal groups it is reached through
	Auth    Auth
	Limits  Limits
	Resets  ResetScope // whom TARGET WARM RESET and TARGET COLD RESET concern
	Offline bool       // logins are told that the service is not available

	// Allowed decides whether an initiator may use the target and see it in
	// discovery; reason says why not. One that is Unproven is asked about again
	// when its account is known. nil allows every initiator.
	Allowed func(Peer) (ok bool, reason string)

	// Masked returns the numbers of the logical units that an initiator does not
	// see; see [scsi.Nexus.Mask]. nil masks nothing.
	Masked func(Peer) []uint16
}

// A PortalGroup is a set of addresses under one portal group tag.
type PortalGroup struct {
	Tag     uint16
	Portals []netip.AddrPort // as bound; an unspecified address stands for the one that the initiator used

	// Announced are more addresses, as TargetAddress has them (RFC 7143 13.8).
	// They are told to everybody as they are, for portals behind address translation.
	Announced []string
}

// A Node serves the targets of one daemon.
type Node struct {
	opt    Options
	log    *slog.Logger
	memory *account.Process // what initiators have
	pool   mem.Pool         // lends to the Pools of connections and sessions, which have accounts
	work   scheduler
	wait   memoryQueue

	guesses guesses
	sys     system
	seats   *socket.Seats

	leaveSeats func() // gives them back

	tasks sync.Pool // of *task

	mu       ranked.Mutex // protects the fields below
	targets  map[string]*Target
	order    []*Target // targets by name, for discovery
	groups   []PortalGroup
	auth     Auth // of discovery sessions
	sessions map[uint16]*session
	apart    map[uint16]*session // of those, whose data is still to come: Restore's, then Follow's
	conns    map[*conn]struct{}
	origins  map[netip.Prefix]int // how many of conns come from where
	logins   []*conn              // those of conns that are in login, by age
	lastTSIH uint16

	rejections []Rejection // at most maxRejections

	phase    atomic.Uint32 // a nodePhase; changes with mu held
	freeze   freezer
	wg       sync.WaitGroup // connections, workers, the liveness loop
	stop     chan struct{}
	stopOnce sync.Once
	beats    atomic.Uint64 // rounds of the liveness loop
}

// The order in which mutexes are taken.
const (
	rankSession ranked.Rank = iota + 1
	rankNode
	rankQueue // of tasks that wait for a worker, or for memory
	rankOutput
)

// NewNode returns a Node that serves nothing yet.
func NewNode(o Options) *Node {
	n := &Node{
		opt:      o.withDefaults(),
		sys:      realSystem,
		targets:  make(map[string]*Target),
		sessions: make(map[uint16]*session),
		apart:    make(map[uint16]*session),
		conns:    make(map[*conn]struct{}),
		origins:  make(map[netip.Prefix]int),
		stop:     make(chan struct{}),
	}
	n.memory = account.New(n.opt.Limits.Memory, n.opt.Limits.Sessions+n.opt.Limits.DiscoverySessions+n.opt.Limits.Logins)
	n.seats, n.leaveSeats = socket.SharedSeats()
	n.log = limit.Logger(n.opt.Log) // all of its lines initiators can cause
	n.tasks.New = func() any { return new(task) }
	n.work.init(n, n.opt.Workers)
	n.guesses.init(n.opt.Limits.LoginTimeout)
	n.mu.SetRank(rankNode)
	n.wait.mu.SetRank(rankQueue)
	n.freeze.init(&n.mu)
	n.wg.Add(2)
	go n.liveness()
	go n.lendMemory()
	return n
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

// Serve takes over a connection that was accepted on a portal of the group
// tag and returns at once. The Node closes the connection in the end; on an
// error it has closed it already.
func (n *Node) Serve(nc *net.TCPConn, group uint16) error {
	if nc == nil {
		return errors.New("iscsi: there is no connection to serve")
	}
	sock, err := socket.New(n.seats, nc)
	if err != nil {
		nc.Close()
		return fmt.Errorf("iscsi: %w", err)
	}
	c := newConn(n, sock, group)
	if err := n.addConn(c); err != nil {
		c.closeAccount()
		sock.Close()
		return err
	}
	go c.run()
	return nil
}

// addConn enters c into the table and counts its goroutine.
func (n *Node) addConn(c *conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.is(nodeEnding) {
		return ErrClosed
	}
	if err := n.admitLocked(c); err != nil {
		return err
	}
	n.enterLocked(c)
	n.wg.Add(1)
	return nil
}

func (n *Node) removeConn(c *conn) {
	n.mu.Lock()
	n.leaveLocked(c)
	n.freeze.change.Broadcast()
	n.mu.Unlock()
	n.wg.Done()
}

// newTSIH returns a session handle that no session has, never 0. The caller
// holds n.mu.
func (n *Node) newTSIHLocked() uint16 {
	for {
		n.lastTSIH++
		if n.lastTSIH != 0 && n.sessions[n.lastTSIH] == nil {
			return n.lastTSIH
		}
	}
}

// addSession gives a session with a target its TSIH and enters it into the table. If there is a
// session for the same I_T nexus already (RFC 7143 4.4.3), it returns that
// one instead.
func (n *Node) addSession(s *session) (*session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.is(nodeEnding) {
		return nil, ErrClosed
	}
	if n.targets[strings.ToLower(s.target.Name)] != s.target {
		return nil, login.ErrNoTarget // it was taken away during the login
	}
	if old := n.findSessionLocked(s); old != nil {
		return old, nil
	}
	if err := n.admitSessionLocked(s); err != nil {
		return nil, err
	}
	s.tsih = n.newTSIHLocked()
	n.sessions[s.tsih] = s
	return nil, nil
}

// addDiscovery gives a discovery session its TSIH and enters it into the table.
func (n *Node) addDiscovery(s *session) error {
	n.mu.Lock()
	if n.is(nodeEnding) {
		n.mu.Unlock()
		return ErrClosed
	}
	victim, err := n.admitDiscoveryLocked()
	if err == nil {
		s.tsih = n.newTSIHLocked()
		n.sessions[s.tsih] = s
	}
	n.mu.Unlock()
	if victim != nil {
		victim.end(errDiscoveryDisplaced)
	}
	return err
}

// findSessionLocked returns the session with the same initiator port, target
// and portal group as s.
func (n *Node) findSessionLocked(s *session) *session {
	for _, o := range n.sessions {
		if o.isid == s.isid && o.group == s.group && o.initiator == s.initiator && o.target != nil && o.targetName() == s.targetName() {
			return o
		}
	}
	return nil
}

func (n *Node) removeSession(s *session) {
	n.mu.Lock()
	delete(n.sessions, s.tsih)
	n.mu.Unlock()
}

// sessionList returns the sessions in order of their TSIH.
func (n *Node) sessionList() []*session {
	n.mu.Lock()
	list := make([]*session, 0, len(n.sessions))
	for _, s := range n.sessions {
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
	return n.sessions[tsih]
}

func (n *Node) connList() []*conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		list = append(list, c)
	}
	return list
}

// Shutdown asks every initiator to log out, waits for that until ctx ends,
// then closes what is left. Commands under way finish.
func (n *Node) Shutdown(ctx context.Context) {
	n.beginClosing()
	for _, s := range n.sessionList() {
		s.requestLogout()
	}
	for _, s := range n.sessionList() {
		select {
		case <-s.gone:
		case <-ctx.Done():
		}
	}
	n.Close()
}

// beginClosing lets nothing new begin. A Node whose connections are another
// process's leaves them alone.
func (n *Node) beginClosing() {
	n.mu.Lock()
	defer n.mu.Unlock()
	frozen := n.is(set(nodeFrozen))
	if !n.moveLocked(nodeClosing) {
		n.moveLocked(nodeRetired)
	}
	if frozen {
		for c := range n.conns {
			c.close(errShutdown) // before its reader goes on
		}
		n.freeze.endLocked()
	}
}

// Close ends every connection and waits until all goroutines of the Node are
// gone.
func (n *Node) Close() {
	n.beginClosing()
	n.halt()
	for _, c := range n.connList() {
		c.close(errShutdown)
	}
	n.work.resume()
	n.join()
}

// halt ends what runs besides the connections.
func (n *Node) halt() { n.stopOnce.Do(func() { close(n.stop) }) }

// join waits until nothing of a closed Node runs any more, and closes what is
// left open.
func (n *Node) join() {
	n.wg.Wait()
	for _, c := range n.connList() {
		c.sock.Close() // restored and never started
	}
	n.leaveSeats()
}

// MemoryUsed returns the bytes that initiators have: buffers on loan, and commands.
func (n *Node) MemoryUsed() int64 { return n.memory.Used() }

// MemoryWaiting returns how many commands wait for memory.
func (n *Node) MemoryWaiting() int { return int(n.wait.waiting.Load()) }

// MemoryLimit returns the bytes that initiators may have; see package account.
func (n *Node) MemoryLimit() int64 { return n.opt.Limits.Memory }
