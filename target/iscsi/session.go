// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

const (
	// Most immediate commands in the task set at once: they pass by the
	// CmdSN window (RFC 7143 4.2.2.1), so they need a limit of their own.
	maxImmediate = 16
	// The CmdSN window while memory is short.
	shortWindow = 4
)

// session is an iSCSI session (RFC 7143 4.4.2). The fields above mu are
// constant once the session is in the Node's table, but for nexus: it is set
// with mu held, and who has found the session in the table and does not know
// that a connection has logged in must hold mu to look.
type session struct {
	node      *Node
	target    *Target     // nil in a discovery session
	nexus     *scsi.Nexus // nil in a discovery session
	initiator string      // iSCSI name
	account   string      // CHAP name; "" for none, or unknown from an older process
	address   netip.Addr  // that the first connection came from
	alias     string
	isid      pdu.ISID
	tsih      uint16
	group     uint16 // portal group tag
	params    Params
	born      boottime.Stamp
	started   time.Time        // born as the clock was set then, to be shown: setting the clock does not move it
	memory    *account.Account // what it and its connections have; set with nexus
	pool      *mem.Pool        // charges it
	gone      chan struct{}    // closed when the session has ended
	apart     *apart           // of one that was restored without its data; nil for all others
	displaced bool             // a discovery session that another takes the place of; protected by Node.mu

	mu        ranked.Mutex              // protects the fields below
	idle      sync.Cond                 // signalled when a task stops running
	window    sequence.Window[*request] // but for its Numbers, which anyone may ask for
	conns     map[uint16]*conn          // by CID
	tasks     map[uint32]*task          // the task set, by initiator task tag
	immediate int                       // tasks that came as immediate commands
	blocked   []*task                   // ready, but behind an ORDERED task or the other way round
	ordered   int                       // ORDERED tasks in the task set
	starved   []*task                   // that wait for memory
	arrivals  uint64                    // tasks delivered so far
	gathered  int64                     // bytes of Data-Out so far
	text      textExchange              // the text negotiation under way
	textHeld  int64                     // bytes of it that are on the account
	phase     sessionPhase
	endReason error          // why it is ending
	resetting bool           // ends soon, because of TARGET COLD RESET
	leave     boottime.Stamp // when it ends unless it has logged out, as it was asked to; zero if it was not

	queue queue // tasks for workers; belongs to the scheduler
}

// request is a non-immediate request that came ahead of its turn.
type request struct {
	conn *conn
	bhs  pdu.BHS
	data *mem.Buffer // data segment, nil for none
	task *task       // of a SCSI command; nil for the others
}

func newSession(n *Node) *session {
	s := &session{
		node:  n,
		conns: make(map[uint16]*conn),
		tasks: make(map[uint32]*task),
		born:  boottime.Of(time.Now()), started: time.Now().Round(0),
		gone: make(chan struct{}),
	}
	s.mu.SetRank(rankSession)
	s.idle.L = &s.mu
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
	s.window.Open(max(depth-len(s.tasks)+s.immediate, 0))
}

// runWaiting handles the waiting requests whose turn has come.
func (s *session) runWaiting() {
	for {
		s.mu.Lock()
		next, ok := s.window.Next()
		if !ok {
			s.mu.Unlock()
			return
		}
		r := next.Request
		switch {
		case next.Skip:
			s.openWindowLocked()
			s.mu.Unlock()
			continue
		case r.task != nil:
			run := s.deliverLocked(r.task)
			s.mu.Unlock()
			s.proceed(r.task, run)
		default:
			s.openWindowLocked()
			s.mu.Unlock()
			r.process()
		}
		r.conn.out.Flush()
	}
}

// process handles a waiting request other than a SCSI command.
func (r *request) process() {
	var data []byte
	if r.data != nil {
		data = r.data.B
	}
	if err := r.conn.process(&r.bhs, data); err != nil {
		r.conn.close(err)
	}
	r.data.Release()
	r.conn.sess.memory.Release(requestCost)
}

// openAccount gives the session what it may have of the memory.
func (s *session) openAccount() {
	s.memory = s.node.memory.Open("initiator " + s.initiator + " " + s.account)
	s.pool = s.node.pool.For(s.memory)
}

// sequence handles a request other than a SCSI command in its turn.
func (c *conn) sequence(h *pdu.BHS, data []byte) error {
	s := c.sess
	s.mu.Lock()
	switch s.window.Admit(h.Immediate(), h.CmdSN()) {
	case sequence.Never:
		s.mu.Unlock()
		return nil
	case sequence.Later:
		r := c.keepRequest(h, data)
		if r == nil {
			s.mu.Unlock()
			c.refuseForMemory(h)
			return nil
		}
		s.window.Keep(h.CmdSN(), r)
		s.mu.Unlock()
		return nil
	}
	if !h.Immediate() {
		s.openWindowLocked()
	}
	more := s.window.Len() > 0
	s.mu.Unlock()
	err := c.process(h, data)
	if more {
		s.runWaiting()
	}
	return err
}

// keepRequest copies a request that is ahead of its turn, nil if the session has no memory for it.
func (c *conn) keepRequest(h *pdu.BHS, data []byte) *request {
	if !c.sess.memory.Admit(requestCost) {
		return nil
	}
	r := &request{conn: c, bhs: *h}
	if len(data) == 0 {
		return r
	}
	if r.data = c.in.Take(); r.data == nil {
		if r.data = c.pool.TryGet(len(data)); r.data == nil {
			c.sess.memory.Release(requestCost)
			return nil
		}
		copy(r.data.B, data)
	}
	r.data.B = r.data.B[:len(data)]
	return r
}

// process handles a request whose turn has come.
func (c *conn) process(h *pdu.BHS, data []byte) error {
	switch h.Opcode() {
	case pdu.OpNOPOut:
		return c.handleNOPOut(h, data)
	case pdu.OpTextReq:
		return c.handleText(h, data)
	case pdu.OpLogoutReq:
		return c.handleLogout(h)
	default:
		return c.handleTaskManagement(h)
	}
}

// join adds a connection that has finished its login. If the session has ended
// meanwhile, the connection ends too.
func (s *session) join(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.cid] = c
	if s.phase != sessionOpen {
		c.close(cmp.Or(s.endReason, errSessionLost))
	}
}

// end stops the session: no task starts any more and every connection closes.
// [session.gone] closes when that is done.
func (s *session) end(why error) {
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	if s.endReason == nil {
		s.endReason = why
	}
	conns := s.connsLocked()
	s.abortLocked(func(*task) bool { return true }, nil)
	s.mu.Unlock()
	for _, c := range conns {
		c.close(why)
	}
}

func (s *session) connsLocked() []*conn {
	list := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		list = append(list, c)
	}
	return list
}

// lost reports whether a connection has ended in a way that ends its session.
func (c *conn) lost() bool {
	return c.is(connClosed) && c.ended != errLoggedOut && c.ended != errReplaced
}

// connectionLost takes a closed connection out of the session and ends the
// tasks that belong to it. Without error recovery a connection that ends
// otherwise than by a logout takes its session along (RFC 7143 7.1.4.2).
func (s *session) connectionLost(c *conn) {
	if c.lost() {
		s.end(c.ended)
	}
	s.mu.Lock()
	s.abortLocked(func(t *task) bool { return t.conn == c }, nil)
	s.dropWaitingLocked(c)
	for s.runningOnLocked(c) {
		s.idle.Wait()
	}
	if s.conns[c.cid] == c {
		delete(s.conns, c.cid)
	}
	last := len(s.conns) == 0
	if last {
		s.moveLocked(sessionEnding)
	}
	s.mu.Unlock()
	if last {
		s.finish()
	}
}

func (s *session) runningOnLocked(c *conn) bool {
	for _, t := range s.tasks {
		if t.conn == c && t.phase == taskRunning {
			return true
		}
	}
	return false
}

// dropWaitingLocked forgets the waiting requests of a connection.
func (s *session) dropWaitingLocked(c *conn) {
	s.window.Drop(func(r *request) bool {
		if r.conn != c {
			return false
		}
		r.data.Release()
		if r.task != nil {
			s.dropLocked(r.task)
		} else {
			s.memory.Release(requestCost)
		}
		return true
	})
}

// finish ends a session that has no connection and no task left.
func (s *session) finish() {
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	first := s.moveLocked(sessionGone)
	s.newTextLocked(pdu.ReservedTag)
	s.mu.Unlock()
	if !first {
		return
	}
	if s.nexus != nil {
		s.nexus.Close()
	}
	s.memory.Close()
	s.node.removeSession(s)
	if ended := s.node.opt.Ended; ended != nil && s.target != nil {
		ended(s.info(), s.reason())
	}
	close(s.gone)
}

// reason is why the session has ended, nil for a logout.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endReason
}

// requestLogout asks the initiator to log out (RFC 7143 11.9.1, event 1).
func (s *session) requestLogout() {
	s.mu.Lock()
	conns := s.connsLocked()
	s.mu.Unlock()
	for _, c := range conns {
		c.out.Send(header(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: logoutRequestSeconds}), true)
		c.out.Flush()
	}
}

// SessionInfo is a session as [Node.Sessions] reports it.
type SessionInfo struct {
	Initiator   string
	Alias       string
	Account     string     // CHAP name, empty for none
	Address     netip.Addr // that the first connection came from
	Target      string     // empty for a discovery session
	ISID        pdu.ISID
	TSIH        uint16
	Group       uint16 // portal group tag
	Started     time.Time
	Connections []ConnectionInfo
	Tasks       int // in the task set
	Counters    scsi.Counters
	LastIO      time.Time // of reads and writes, zero for never; see [scsi.LogicalUnit.LastIO]
	Masked      []uint16  // logical unit numbers that it does not see
	Leaving     bool      // it was asked to log out
	Params      Params
}

// ConnectionInfo is a connection of a session.
type ConnectionInfo struct {
	CID          uint16
	Local        netip.AddrPort
	Remote       netip.AddrPort
	HeaderDigest bool
	DataDigest   bool
}

// SampleIO notes when each session has last read or written.
func (n *Node) SampleIO() {
	for _, s := range n.sessionList() {
		s.mu.Lock()
		nexus := s.nexus
		s.mu.Unlock()
		if nexus != nil {
			nexus.LastIO()
		}
	}
}

// Sessions returns the sessions in order of their TSIH.
func (n *Node) Sessions() []SessionInfo {
	var list []SessionInfo
	for _, s := range n.sessionList() {
		list = append(list, s.info())
	}
	return list
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
	i.Tasks, i.Leaving = len(s.tasks), s.leave != 0
	for _, c := range s.conns {
		i.Connections = append(i.Connections, ConnectionInfo{c.cid, c.sock.Local(), c.remote, c.agreed.HeaderDigest, c.agreed.DataDigest})
	}
	slices.SortFunc(i.Connections, func(a, b ConnectionInfo) int { return int(a.CID) - int(b.CID) })
	return i
}
