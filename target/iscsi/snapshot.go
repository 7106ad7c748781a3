// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"maps"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/socket"
)

// Rest is what a frozen Node has left out of a snapshot. It is written when the successor
// has taken over.
type Rest struct {
	sessions []*session
	tasks    bool // commands and requests follow, not their data alone
}

// has reports whether a session's data is in the Rest.
func (r *Rest) has(s *session) bool { return r != nil && s != nil && slices.Contains(r.sessions, s) }

// Snapshot returns the state of a frozen Node and its sockets, which stay the
// Node's and are open until it thaws or retires. The Node can still thaw afterwards. A connection that has closed, and
// whose reader the freeze stopped before it noticed, is not in it, and nor is
// what ends with it.
func (n *Node) Snapshot() (*NodeState, []*socket.Socket) {
	st, socks, _ := n.snapshot(nil, func() error { return nil })
	return st, socks
}

// snapshot leaves out what follows.
func (n *Node) snapshot(follows *Rest, stop func() error) (*NodeState, []*socket.Socket, error) {
	st := &NodeState{LastTSIH: n.sessions.lastTSIH, Rejections: n.Rejections(), Totals: new(n.Totals()), Guesses: n.guesses.Snapshot(time.Now())}
	for _, s := range n.sessionList() {
		if err := stop(); err != nil {
			return nil, nil, err
		}
		ss, apart := s.snapshot(), follows.has(s)
		if !apart || !follows.tasks {
			s.snapshotTasks(&ss, func(c *transport) bool { return !c.is(connClosed) })
		}
		if apart {
			ss.leaveOut()
		}
		st.Sessions = append(st.Sessions, ss)
	}
	var socks []*socket.Socket
	for _, c := range n.connList() {
		if err := stop(); err != nil {
			return nil, nil, err
		}
		if c.is(connClosed) {
			continue
		}
		st.Connections = append(st.Connections, c.snapshot(follows.has(c.sess)))
		socks = append(socks, c.sock)
	}
	return st, socks, nil
}

func (c *conn) snapshot(apart bool) ConnectionState {
	st := ConnectionState{
		CID: c.cid, Group: c.group, Born: c.born.Time().UnixNano(), BornStamp: c.born, HeaderDigest: c.agreed.HeaderDigest, DataDigest: c.agreed.DataDigest,
		SendLimit: c.agreed.SendLimit, ReceiveLimit: c.agreed.ReceiveLimit, LoggingOut: c.is(connLeaving),
		Login: c.login, Heard: c.heard.Load(), Last: c.out.Last(),
	}
	if apart {
		st.StatSN = c.out.LastStatSN()
	} else {
		st.In, st.Out = c.in.Bytes(), c.out.Settle()
		st.StatSN = c.out.StatSN()
	}
	if c.sess != nil {
		st.TSIH = c.sess.tsih
	}
	return st
}

// snapshot is the session without its tasks.
func (s *session) snapshot() SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionState{
		TSIH: s.tsih, ISID: s.isid, Initiator: s.initiator, Alias: s.alias, Target: s.targetName(), Group: s.group,
		Params: s.params, Started: s.started.UnixNano(), StartedStamp: s.born, LastTTT: s.window.LastTag(), Arrivals: s.tasks.arrivals, Text: s.text.textExchange, Ending: s.phase >= sessionEnding, Resetting: s.resetting,
		Account: []byte(s.account),
	}
	if s.leave != 0 {
		st.Leave, st.LeaveStamp = s.leave.Time().UnixNano(), s.leave
	}
	st.ExpCmdSN, st.MaxCmdSN = s.window.Numbers()
	st.Address, _ = s.address.MarshalBinary() // never fails
	for _, c := range s.conns {
		st.Ending = st.Ending || c.lost()
	}
	return st
}

// snapshotTasks adds the tasks and the requests that are ahead of their turn, of the connections that move.
func (s *session) snapshotTasks(st *SessionState, moves func(*transport) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range slices.SortedFunc(maps.Values(s.tasks.byTag), func(a, b *task) int { return int(int64(a.order - b.order)) }) {
		if moves(t.conn) {
			st.Tasks = append(st.Tasks, t.snapshot())
		}
	}
	for q := range s.window.All() {
		if q.Skip {
			st.Pending = append(st.Pending, PendingState{CmdSN: q.CmdSN, Plug: true})
			continue
		}
		r := q.Request
		if !moves(r.conn) {
			continue
		}
		p := PendingState{CmdSN: q.CmdSN, BHS: r.bhs, CID: r.conn.cid, Task: r.task != nil}
		if r.data != nil {
			p.Data = r.data.B
		}
		st.Pending = append(st.Pending, p)
	}
}

func (t *task) snapshot() TaskState {
	d := t.data.Snapshot()
	st := TaskState{
		CID: t.conn.cid, State: t.phase, Order: t.order, Received: d.Received, Unsolicited: d.Unsolicited,
		OutSN: d.OutSN, Asked: d.Asked, R2Ts: d.R2Ts, R2TSN: d.R2TSN, Broken: t.broken, Aborted: t.aborted,
		Done: t.cmd.Done(), Status: uint8(t.cmd.Status), Sense: t.cmd.Sense,
		Progress: t.cmd.Progress(), Again: t.cmd.Kept(),
	}
	t.req.Encode(&st.BHS)
	st.Data = t.arrived()
	return st
}
