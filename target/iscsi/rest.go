// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/fxamacker/cbor/v2"

	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/mem"
)

// A session may hold much: data of writes that wait for more, answers that nobody reads. To
// copy all of it would take seconds, in which every initiator waits, and as much memory again. So
// the sessions that hold the most move in two steps: what they are, in the pause, with all
// others; their data, piece by piece, when the successor serves the others already. They
// wait for that, and the memory of each piece is given back as it goes. Commands count as well: a
// thousand sessions with 128 that wait for data are a second of work without any data.

// frame heads a piece of a Rest.
type frame struct {
	Kind   uint32
	TSIH   uint16
	CID    uint16
	Tag    uint32 // initiator task tag of a task, CmdSN of a request
	Length uint32 // of the data behind it, bytes
}

// Kinds of frames.
const (
	frameTask  = iota + 1 // data-out that has come for a task
	frameAhead            // data of a request that is ahead of its turn
	frameIn               // bytes of the PDU that has begun
	frameOut              // bytes that the initiator has not taken
	frameEnd              // the session is complete
	frameTasks            // a SessionState with tasks and pending requests alone, without their data
)

const (
	frameLen   = int(unsafe.Sizeof(frame{}))
	framePiece = 256 << 10 // bytes of input or output in one frame

	// taskWork is how many bytes of data could move in the time that a command or request takes without any.
	taskWork = 2 << 10
)

// SnapshotApart is [Node.Snapshot] with no more than about most bytes of data in it. The
// sessions that hold the least are whole; of the others the data is in the Rest, which is nil
// if there is none, and their commands too if tasks says that the reader takes these from there.
// stop says why it should go no further.
func (n *Node) SnapshotApart(most int64, tasks bool, stop func() error) (*NodeState, []*socket.Socket, *Rest, error) {
	type holder struct {
		s    *session
		held int64
	}
	var list []holder
	for _, s := range n.sessionList() {
		h := holder{s, s.held()}
		if tasks {
			h.held += taskWork * int64(s.requests())
		}
		list = append(list, h)
	}
	slices.SortStableFunc(list, func(a, b holder) int { return cmp.Compare(a.held, b.held) })
	r := &Rest{tasks: tasks}
	for _, h := range list {
		if most -= h.held; most < 0 && h.held > 0 {
			r.sessions = append(r.sessions, h.s)
		}
	}
	st, socks, err := n.snapshot(r, stop)
	if len(r.sessions) == 0 {
		r = nil
	}
	return st, socks, r, err
}

// held is how many bytes of data the session's part of a snapshot would have. The Node is frozen.
func (s *session) held() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks.byTag {
		n += int64(len(t.arrived()))
	}
	for q := range s.window.All() {
		if !q.Skip && q.Request.data != nil {
			n += int64(len(q.Request.data.B))
		}
	}
	for _, c := range s.conns {
		n += int64(c.in.Len()) + c.out.Waiting()
	}
	return n
}

// requests is how many commands and other requests the session has.
func (s *session) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tasks.byTag) + s.window.Len()
}

// Tasks is how many commands follow.
func (r *Rest) Tasks() (n int) {
	if r == nil || !r.tasks {
		return 0
	}
	for _, s := range r.sessions {
		n += len(s.tasks.byTag)
	}
	return n
}

// Write writes the data to the successor, which has the sockets by now, and gives it up here.
func (r *Rest) Write(w io.Writer) error {
	for _, s := range r.sessions {
		if r.tasks {
			if err := s.writeTasks(w); err != nil {
				return err
			}
		}
		if err := s.writeRest(w); err != nil {
			return err
		}
	}
	return nil
}

// writeTasks writes the session's commands and requests without their data.
func (s *session) writeTasks(w io.Writer) error {
	var st SessionState
	s.snapshotTasks(&st, func(*transport) bool { return true }) // the reader knows which connections have moved
	st.leaveOut()
	b, err := cbor.Marshal(&st)
	if err != nil {
		return fmt.Errorf("iscsi: commands of session %#x: %w", s.tsih, err)
	}
	return s.writeFrame(w, frame{Kind: frameTasks}, b)
}

func (s *session) writeRest(w io.Writer) error {
	for _, t := range s.tasks.byTag {
		if err := s.writeFrame(w, frame{Kind: frameTask, CID: t.conn.cid, Tag: t.req.InitiatorTaskTag}, t.arrived()); err != nil {
			return err
		}
	}
	for q := range s.window.All() {
		if !q.Skip && q.Request.data != nil {
			if err := s.writeFrame(w, frame{Kind: frameAhead, CID: q.Request.conn.cid, Tag: q.CmdSN}, q.Request.data.B); err != nil {
				return err
			}
		}
	}
	for _, c := range s.conns {
		if err := s.writeStreams(w, c); err != nil {
			return err
		}
	}
	return s.writeFrame(w, frame{Kind: frameEnd}, nil)
}

// writeStreams writes what a connection has read and not written.
func (s *session) writeStreams(w io.Writer, c *transport) error {
	for part := range slices.Chunk(c.in.Bytes(), framePiece) {
		if err := s.writeFrame(w, frame{Kind: frameIn, CID: c.cid}, part); err != nil {
			return err
		}
	}
	out := frame{Kind: frameOut, CID: c.cid}
	scratch := make([]byte, 0, framePiece)
	err := c.out.Drain(func(p []byte) error {
		for part := range slices.Chunk(p, framePiece) {
			if len(scratch)+len(part) > framePiece {
				if err := s.writeFrame(w, out, scratch); err != nil {
					return err
				}
				scratch = scratch[:0]
			}
			scratch = append(scratch, part...)
		}
		mem.Forget(p)
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeFrame(w, out, scratch)
}

// writeFrame writes data, unless it is none, and forgets it.
func (s *session) writeFrame(w io.Writer, f frame, data []byte) error {
	if len(data) == 0 && f.Kind != frameEnd {
		return nil
	}
	f.TSIH, f.Length = s.tsih, uint32(len(data))
	b, err := binary.Append(nil, binary.BigEndian, f)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if f.Kind == frameTask || f.Kind == frameAhead {
		mem.Forget(data)
	}
	return err
}

var errRestLost = tally.Endingf(tally.SessionLost, "the process before ended before all data of the session had come")

// Follow reads the Rest of the other process from r, and lets the sessions that it belongs to go
// on one by one. Those that it does not come for end. It is called after [Node.Start], once.
func (n *Node) Follow(r io.Reader) error {
	b := bufio.NewReaderSize(r, framePiece)
	var err error
	for len(n.apart) > 0 && err == nil {
		err = n.followFrame(b)
	}
	for tsih, s := range n.apart {
		for _, c := range s.connections() {
			c.close(errRestLost)
		}
		s.release()
		delete(n.apart, tsih)
	}
	return err
}

func (n *Node) followFrame(r *bufio.Reader) error {
	var f frame
	b := make([]byte, frameLen)
	_, err := io.ReadFull(r, b)
	if err == nil {
		_, err = binary.Decode(b, binary.BigEndian, &f)
	}
	if err != nil {
		return fmt.Errorf("iscsi: data that follows a snapshot: %w", err)
	}
	s := n.apart[f.TSIH]
	if s == nil || f.Length > mem.MaxSize {
		return fmt.Errorf("iscsi: %d bytes follow a snapshot for session %#x, which expects none or not so many", f.Length, f.TSIH)
	}
	if f.Kind == frameEnd {
		delete(n.apart, f.TSIH)
		return n.goOn(s)
	}
	data := make([]byte, f.Length)
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("iscsi: data of session %#x: %w", f.TSIH, err)
	}
	if !s.apart.take(s, &f, data) {
		return fmt.Errorf("iscsi: data of kind %d follows a snapshot for session %#x, and can't be read", f.Kind, f.TSIH)
	}
	return nil
}

// take keeps data of the session, and reports false if it can't be read or is of no known kind. A connection
// that had ended, though its reader had parked before it noticed, is not in the snapshot, nor are its
// tasks: their data is passed over.
func (a *apart) take(s *session, f *frame, data []byte) bool {
	switch f.Kind {
	case frameTasks:
		return a.takeTasks(s, data)
	case frameTask:
		i := slices.IndexFunc(a.state.Tasks, func(t TaskState) bool { return t.BHS.InitiatorTaskTag() == f.Tag })
		if i >= 0 {
			a.state.Tasks[i].Data = data
		}
	case frameAhead:
		i := slices.IndexFunc(a.state.Pending, func(p PendingState) bool { return p.CmdSN == f.Tag && !p.Plug })
		if i >= 0 {
			a.state.Pending[i].Data = data
		}
	case frameIn, frameOut:
		s.mu.Lock()
		c := s.conns[f.CID]
		s.mu.Unlock()
		switch {
		case c == nil:
		case f.Kind == frameIn:
			c.in.Preload(data) // its reader waits
			mem.Forget(data)
		default:
			a.out[f.CID] = append(a.out[f.CID], data)
		}
	default:
		return false
	}
	return true
}

// takeTasks keeps commands and requests of the session, and reports false if they can't be read.
func (a *apart) takeTasks(s *session, data []byte) bool {
	var st SessionState
	if cbor.Unmarshal(data, &st) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.state.Tasks = slices.DeleteFunc(st.Tasks, func(t TaskState) bool { return s.conns[t.CID] == nil })
	a.state.Pending = slices.DeleteFunc(st.Pending, func(p PendingState) bool { return !p.Plug && s.conns[p.CID] == nil })
	return true
}

// goOn lets a session run whose data has come.
func (n *Node) goOn(s *session) error {
	s.mu.Lock()
	err := s.restoreTasks(&s.apart.state)
	s.mu.Unlock()
	if err != nil {
		for _, c := range s.connections() {
			c.close(err)
		}
	} else {
		n.revive(s)
	}
	s.release()
	return err
}

// release lets the session's readers run.
func (s *session) release() {
	for _, c := range s.connections() {
		c.out.Resume(s.apart.out[c.cid])
	}
	close(s.apart.done)
	s.apart.state, s.apart.out = SessionState{}, nil
}
