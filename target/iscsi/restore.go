// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/transfer"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Restore rebuilds the sessions and connections of another Node. files are
// the sockets, in the order of the snapshot's connections; they are closed in
// the end. target finds a target by name; a session whose target it does not
// find, and a connection that can't be rebuilt, is an error that names it.
// Nothing is read or written before [Node.Start]. The Node does not refer to data
// of st afterwards. Sessions whose data is not in it wait for [Node.Follow].
func (n *Node) Restore(st *NodeState, files []*os.File, target func(name string) *Target) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if st == nil || target == nil {
		return errors.New("iscsi: there is no snapshot to restore, or nobody who finds its targets")
	}
	if len(files) != len(st.Connections) {
		return fmt.Errorf("iscsi: %d sockets for %d connections", len(files), len(st.Connections))
	}
	// Until Start nothing runs, and what goes wrong must not hurt the
	// connections, which are the other process's. What timers do has ended before.
	n.freeze.still.Lock()
	n.freeze.phase.Store(uint32(nodeRestoring))
	n.freeze.still.Unlock()
	n.sessions.lastTSIH = st.LastTSIH
	n.rejections.restore(st.Rejections)
	n.tally.Add(st.Totals)
	n.guesses.Restore(time.Now(), st.Guesses)
	for i := range st.Sessions {
		if err := n.restoreSession(&st.Sessions[i], target); err != nil {
			return err
		}
	}
	for i := range st.Connections {
		if err := n.restoreConn(&st.Connections[i], files[i]); err != nil {
			return err
		}
	}
	slices.SortFunc(n.conns.logins, func(a, b *conn) int { return cmp.Compare(a.born, b.born) })
	n.maskRestored()
	for i := range st.Sessions {
		if st.Sessions[i].Apart {
			continue
		}
		if err := n.sessions.byTSIH[st.Sessions[i].TSIH].restoreTasks(&st.Sessions[i]); err != nil {
			return err
		}
	}
	return nil
}

// maskRestored gives the sessions of a snapshot the view that they have now.
func (n *Node) maskRestored() {
	for _, s := range n.sessionList() {
		if s.target != nil {
			s.nexus.Mask(s.target.masked(s.peer()))
		}
	}
}

// stampOf is a stamp that a snapshot has, or else its wall time, in nanoseconds since 1970.
func stampOf(s boottime.Stamp, wall int64) boottime.Stamp {
	if s == 0 {
		return boottime.Of(time.Unix(0, wall))
	}
	return s
}

func (n *Node) restoreSession(st *SessionState, target func(string) *Target) error {
	s := newSession(&n.engine, n)
	s.initiator, s.alias, s.isid, s.tsih, s.group = st.Initiator, iscsiname.Printable(st.Alias, pdu.MaxValueLen), st.ISID, st.TSIH, st.Group
	s.params, s.born, s.account = st.Params, stampOf(st.StartedStamp, st.Started), string(st.Account)
	s.started = time.Unix(0, st.Started)
	if err := s.address.UnmarshalBinary(st.Address); err != nil {
		return fmt.Errorf("iscsi: the address of the session of %s: %w", st.Initiator, err)
	}
	s.openAccount()
	s.tasks.arrivals = st.Arrivals
	s.resetting = st.Resetting
	s.text.restore(st.Text)
	if st.Leave != 0 {
		s.leave = stampOf(st.LeaveStamp, st.Leave)
	}
	s.phase = sessionOpen
	if st.Ending {
		s.phase = sessionEnding
	}
	if st.Target != "" {
		if s.target = target(st.Target); s.target == nil {
			return fmt.Errorf("iscsi: no target %q for the session of %s", st.Target, st.Initiator)
		}
		// The device server's share has been restored: Lookup finds the nexus
		// with its unit attentions.
		nexus, ok := s.target.Device.Lookup(s.nexusID())
		if !ok {
			nexus = s.target.Device.Open(s.nexusID())
		}
		s.nexus = nexus
	}
	if n.sessions.byTSIH[s.tsih] != nil {
		return fmt.Errorf("iscsi: two sessions with TSIH %#x", s.tsih)
	}
	n.sessions.byTSIH[s.tsih] = s
	if st.Apart {
		s.apart = &apart{state: *st, out: make(map[uint16][][]byte), done: make(chan struct{})}
		n.apart[s.tsih] = s
	}
	return nil
}

func (n *Node) restoreConn(st *ConnectionState, f *os.File) error {
	sock, err := socket.FromFile(n.seats, f)
	if err != nil {
		return fmt.Errorf("iscsi: %w", err)
	}
	c := n.newConn(sock, st.Group)
	c.born, c.cid = stampOf(st.BornStamp, st.Born), st.CID
	c.agree(login.Agreed{HeaderDigest: st.HeaderDigest, DataDigest: st.DataDigest, SendLimit: st.SendLimit, ReceiveLimit: st.ReceiveLimit})
	c.heard.Store(st.Heard)
	c.out.StartStatSN(st.StatSN)
	if st.Last {
		c.out.Finish()
	}
	if st.TSIH == 0 {
		c.in.Preload(st.In)
		return n.restoreLogin(c, st)
	}
	if c.sess = n.sessions.byTSIH[st.TSIH]; c.sess == nil || c.sess.conns[c.cid] != nil {
		// Before the CID of a session was claimed in one step, two that logged in at once could have
		// it: one of them is in no table, and may have outlived its session. It ends with the
		// predecessor, which closes the last socket.
		c.closeAccount()
		c.sock.Close()
		return nil
	}
	c.chargeSession()
	c.in.Preload(st.In)
	c.out.Restore(bytes.Clone(st.Out))
	if c.sess.apart != nil {
		c.out.Hold()
	}
	c.login = nil
	c.move(connFull)
	if st.LoggingOut {
		c.move(connLeaving)
	}
	c.sess.conns[c.cid] = &c.transport
	if !c.sess.address.IsValid() { // from a process that did not tell it
		c.sess.address = c.remote.Addr()
	}
	n.conns.enter(c)
	return nil
}

// restoreLogin goes on with a login. If its target is gone or closed to the
// initiator by now, its next request is answered as the first would have been.
func (n *Node) restoreLogin(c *conn, st *ConnectionState) error {
	if st.Login == nil {
		c.sock.Close()
		return fmt.Errorf("iscsi: no login state for the connection of %s", c.remote)
	}
	c.login = st.Login
	c.out.Restore(bytes.Clone(st.Out))
	n.conns.enter(c)
	c.login.Resume(loginPhase{c, n})
	return nil
}

func (s *session) restoreTasks(st *SessionState) error {
	for i := range st.Tasks {
		if err := s.restoreTask(&st.Tasks[i]); err != nil {
			return err
		}
		if st.Apart {
			mem.Forget(st.Tasks[i].Data) // it is in the task's buffer
		}
	}
	waiting := make([]sequence.Waiting[*request], 0, len(st.Pending))
	for i := range st.Pending {
		p := &st.Pending[i]
		q := sequence.Waiting[*request]{CmdSN: p.CmdSN, Skip: p.Plug}
		if !p.Plug {
			r, err := s.restoreRequest(p)
			if err != nil {
				return err
			}
			q.Request = r
			if st.Apart {
				mem.Forget(p.Data)
			}
		}
		waiting = append(waiting, q)
	}
	if err := s.window.Restore(st.ExpCmdSN, st.MaxCmdSN, st.LastTTT, waiting); err != nil {
		return fmt.Errorf("iscsi: the command window of %s: %w", s.initiator, err)
	}
	return nil
}

func (s *session) restoreRequest(p *PendingState) (*request, error) {
	r := &request{conn: s.conns[p.CID], bhs: p.BHS}
	if r.conn == nil {
		return nil, fmt.Errorf("iscsi: a pending request of %s has no connection", s.initiator)
	}
	if p.Task {
		if r.task = s.tasks.byTag[p.BHS.InitiatorTaskTag()]; r.task == nil {
			return nil, fmt.Errorf("iscsi: a pending command of %s has no task", s.initiator)
		}
	}
	if r.task == nil {
		s.memory.Charge(requestCost)
	}
	if len(p.Data) > 0 {
		r.data = s.pool.Get(len(p.Data))
		copy(r.data.B, p.Data)
	}
	return r, nil
}

// restoreTask brings a task back to where it was.
func (s *session) restoreTask(st *TaskState) error {
	c := s.conns[st.CID]
	if c == nil || st.State >= taskRunning {
		return fmt.Errorf("iscsi: a task of %s has no connection, or a phase that does not move", s.initiator)
	}
	var data transfer.Out
	if err := data.Restore(transfer.State{
		Received: st.Received, Unsolicited: st.Unsolicited, OutSN: st.OutSN,
		Asked: st.Asked, R2Ts: st.R2Ts, R2TSN: st.R2TSN,
	}); err != nil {
		return fmt.Errorf("iscsi: a task of %s: %w", s.initiator, err)
	}
	s.memory.Charge(taskCost)
	t := newTask(&s.terms, c)
	t.req.Decode(&st.BHS)
	t.data = data
	t.phase, t.order = st.State, st.Order
	t.broken, t.aborted = st.Broken, st.Aborted
	s.tasks.enter(t)
	t.cmd.Out = st.Data
	switch {
	case t.phase != taskEarly:
		s.rearm(t, st)
	case st.Done:
		t.cmd.Settle(scsi.Status(st.Status), st.Sense)
	}
	s.restoreData(t)
	switch t.phase {
	case taskReady:
		s.engine.work.Add(&s.queue, t)
	case taskBlocked:
		s.tasks.blocked = append(s.tasks.blocked, t)
	}
	return nil
}

// restoreData gives a task the buffer that it had in the other process, whatever the session has
// by now.
func (s *session) restoreData(t *task) {
	size := t.keeps()
	if len(t.data.Open()) > 0 && t.broken == 0 && !t.cmd.Done() { // else it asks when there is room
		size = int(t.data.Want())
	}
	if size == 0 {
		t.cmd.Out = nil
		return
	}
	t.moveTo(s.pool.Get(size))
}

// rearm repeats what delivery did to a task.
func (s *session) rearm(t *task, st *TaskState) {
	t.address()
	s.tasks.delivered(t)
	switch {
	case st.Done:
		t.cmd.Settle(scsi.Status(st.Status), st.Sense)
	case t.broken == 0:
		s.nexus.Reprepare(&t.cmd)
		t.cmd.Resume(st.Progress)
		if st.Again {
			t.cmd.KeepRangeForRepeat()
		}
		t.setWant()
	}
}

// Start lets a restored Node run: everything goes on where it stopped. Call
// it exactly once, and only when the other process is done with the sockets.
func (n *Node) Start() {
	n.mu.Lock()
	started := n.freeze.moveLocked(nodeServing)
	n.mu.Unlock()
	if !started {
		return
	}
	// Before any reader runs: readers end sessions as well, and send what is
	// queued here when they begin.
	resetting := false
	for _, s := range n.sessionList() {
		resetting = resetting || s.resetting
		if s.apart == nil {
			n.revive(s)
		}
	}
	if resetting {
		n.endReset()
	}
	n.goOnDismissing()
	for _, c := range n.connList() {
		n.wg.Add(1)
		go n.run(c)
	}
	n.work.Resume()
}

// goOnDismissing waits for the sessions that the other process has just asked to
// log out. One that was asked long ago and is there has been allowed to stay.
func (n *Node) goOnDismissing() {
	const grace = logoutRequestSeconds * time.Second
	for _, s := range n.sessionList() {
		if time.Until(s.leave.Time()) > -grace {
			n.Dismiss(s.tsih, grace)
		}
	}
}

// revive lets tasks go on that waited for memory, and for nothing else, and
// ends a session that had lost a connection.
func (n *Node) revive(s *session) {
	if len(s.conns) == 0 {
		s.finish()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if s.phase == sessionEnding && !c.is(connLeaving) {
			c.close(errSessionLost)
		}
	}
	for _, t := range s.tasks.byTag {
		if t.phase == taskData && t.broken == 0 && !t.cmd.Done() && !t.data.Underway() {
			s.askLocked(t)
		}
	}
}
