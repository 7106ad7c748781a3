// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/schedule"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// shortWindow is the CmdSN window while memory is short.
const shortWindow = 4

// A registry is the table of sessions that a session is in.
type registry interface {
	sessionList() []*session
	removeSession(s *session)
}

// session is an iSCSI session (RFC 7143 4.4.2). The fields above mu are
// constant once the session is in the Node's table, but for nexus: it is set
// with mu held, and who has found the session in the table and does not know
// that a connection has logged in must hold mu to look.
type session struct {
	engine    *engine
	table     registry
	terms                      // memory, pool and device are set with nexus
	spare     *account.Account // beside memory, see [account.Account.Spare]
	chunks    *mem.Pool        // of spare
	target    *Target          // nil in a discovery session
	nexus     *scsi.Nexus      // nil in a discovery session
	initiator string           // iSCSI name
	account   string           // CHAP name; "" for none, or unknown from an older process
	address   netip.Addr       // that the first connection came from
	alias     string
	isid      pdu.ISID
	tsih      uint16
	group     uint16 // portal group tag
	born      boottime.Stamp
	started   time.Time     // born as the clock was set then, to be shown: setting the clock does not move it
	gone      chan struct{} // closed when the session has ended
	apart     *apart        // of one that was restored without its data; nil for all others
	displaced bool          // a discovery session that another takes the place of; protected by Node.mu

	mu        ranked.Mutex              // protects the fields below
	idle      sync.Cond                 // signalled when a task stops running
	window    sequence.Window[*request] // but for its Numbers, which anyone may ask for
	conns     map[uint16]*transport     // by CID; those that finish their login have claimed it
	tasks     taskSet
	starved   []*task  // that wait for memory
	gathered  int64    // bytes of Data-Out so far
	text      exchange // the text negotiation under way
	phase     sessionPhase
	endReason error          // why it is ending
	resetting bool           // ends soon, because of TARGET COLD RESET
	leave     boottime.Stamp // when it ends unless it has logged out, as it was asked to; zero if it was not

	queue schedule.Queue[*task] // tasks for workers
}

func newSession(e *engine, table registry) *session {
	s := &session{
		engine: e, table: table,
		conns: make(map[uint16]*transport),
		tasks: taskSet{byTag: make(map[uint32]*task)},
		born:  boottime.Of(time.Now()), started: time.Now().Round(0),
		gone: make(chan struct{}),
	}
	s.mu.SetRank(rankSession)
	s.idle.L = &s.mu
	s.queue.Init(s)
	return s
}

// nexusID names the session's I_T nexus to the device server.
func (s *session) nexusID() scsi.NexusID {
	return scsi.NexusID{Initiator: s.initiator, ISID: s.isid, TargetPort: s.group}
}

func (s *session) targetName() string {
	if s.target == nil {
		return ""
	}
	return s.target.Name
}

// openWindowLocked lets MaxCmdSN follow the load: it stays as many commands
// ahead of ExpCmdSN as the queue depth leaves room for, and never goes back
// (RFC 7143 4.2.2.1). An idle session always has an open window.
func (s *session) openWindowLocked() {
	depth := s.params.QueueDepth
	if s.memory.Short() {
		depth = min(depth, shortWindow)
	}
	s.window.Open(max(depth-len(s.tasks.byTag)+s.tasks.immediate, 0))
}

// leaveLocked takes a task out of the task set, answered or ended. Others may have waited for that.
func (s *session) leaveLocked(t *task, to taskPhase) {
	s.tasks.leave(t, to)
	t.cmd.ReleaseRange()
	s.openWindowLocked()
	s.idle.Broadcast()
	for len(s.tasks.blocked) > 0 {
		t := s.tasks.next()
		if t == nil {
			return
		}
		t.moveLocked(taskReady)
		s.engine.work.Add(&s.queue, t)
	}
}

// keepRequest copies a request that is ahead of its turn, nil if the session has no memory for it.
func (s *session) keepRequest(c *transport, h *pdu.BHS, data []byte) *request {
	if !s.memory.Admit(requestCost) {
		return nil
	}
	r := &request{conn: c, bhs: *h}
	if len(data) == 0 {
		return r
	}
	if r.data = c.in.Take(); r.data == nil {
		if r.data = c.pool.TryGet(len(data)); r.data == nil {
			s.memory.Release(requestCost)
			return nil
		}
		copy(r.data.B, data)
	}
	r.data.B = r.data.B[:len(data)]
	return r
}

// openAccount gives the session what it may have of the memory.
func (s *session) openAccount() {
	e := s.engine
	s.memory = e.memory.Open("initiator " + s.initiator + " " + s.account)
	s.pool = e.pool.For(s.memory)
	s.spare = s.memory.Spare(stream.ChunkSize)
	s.chunks = e.pool.For(s.spare)
	s.free = &e.tasks
	s.text.account = s.memory
	if s.target != nil {
		s.device = s.target.Device
	}
}

// connsLocked returns the connections that have joined. One that has only claimed its CID belongs to
// its login still, and finds out by itself what has become of the session.
func (s *session) connsLocked() []*transport {
	list := make([]*transport, 0, len(s.conns))
	for _, c := range s.conns {
		if !c.is(connLogin) {
			list = append(list, c)
		}
	}
	return list
}

// reason is why the session has ended, nil for a logout.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endReason
}

func (s *session) info() SessionInfo {
	i := SessionInfo{
		Initiator: s.initiator, Alias: s.alias, Account: s.account, Address: s.address, Target: s.targetName(), ISID: s.isid, TSIH: s.tsih,
		Group: s.group, Started: s.started, Params: s.params,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nexus != nil {
		i.Counters, i.LastIO, i.Masked = s.nexus.Counters(), s.nexus.LastIO(), s.nexus.Masked()
	}
	i.Tasks, i.Leaving = len(s.tasks.byTag), s.leave != 0
	if len(s.tasks.byTag) > 0 {
		i.Inflight = make(map[uint16]int)
	}
	for _, t := range s.tasks.byTag {
		if lun, ok := scsi.LUN(t.req.LUN).Number(); ok {
			i.Inflight[lun]++
		}
	}
	for _, c := range s.connsLocked() {
		i.Connections = append(i.Connections, ConnectionInfo{c.cid, c.sock.Local(), c.remote, c.agreed.HeaderDigest, c.agreed.DataDigest})
	}
	slices.SortFunc(i.Connections, func(a, b ConnectionInfo) int { return int(a.CID) - int(b.CID) })
	return i
}

// moveLocked takes the session to another phase, false if it can't go there.
func (s *session) moveLocked(to sessionPhase) bool {
	ok := has(sessionMoves[s.phase], to)
	if ok {
		s.phase = to
	}
	return ok
}

func (s *session) peer() Peer {
	return Peer{Addr: s.address, Initiator: s.initiator, Account: s.account}
}

// isOthers reports whether the session belongs to another account than the one
// that logs in. One that has proved nothing, because nobody asked, or whom a process
// has handed over that did not tell, is nobody's.
func (s *session) isOthers(account string) bool {
	return s.account != "" && account != "" && s.account != account
}

func (s *session) isResetting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resetting
}

func (s *session) newTTT() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.NewTag()
}

func (s *session) connections() []*transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connsLocked()
}
