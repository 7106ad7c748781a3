// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
)

// session reads a session and checks it, with its connections.
func (w *recovery) session(n uint32, serial uint64) (r RecoveredSession, err error) {
	j := w.j
	s := &Session{j: j, at: j.g.region(ofSession, n), n: n, serial: serial, slots: newPlaces(Slots)}
	r.Session = s
	committed := j.load(s.at + sessionCommit)
	if committed >= most {
		return r, fmt.Errorf("it has had %d transactions", committed)
	}
	s.tag = committed + 1
	if r.Static, err = j.static(s.at+sessionStatic, maxStatic); err != nil {
		return r, err
	}
	at, ok := j.inForce(s.at+sessionRecords, s.at+sessionRecords+128, committed)
	if !ok {
		return r, errors.New("no version of its record is in force")
	}
	r.Record.decode(j.m[at:])
	mine := len(w.owners)
	defer func() {
		if err != nil {
			w.owners = w.owners[:mine]
		}
	}()
	o := owner{kind: ofSession, n: n}
	if err := errors.Join(w.own(r.Record.TextIn, o), w.own(r.Record.TextOut, o)); err != nil {
		return r, err
	}
	for _, c := range w.conns[n] {
		rc, err := w.conn(&c, committed)
		if err != nil {
			return r, fmt.Errorf("its connection in region %d: %w", c.n, err)
		}
		r.Conns = append(r.Conns, rc)
	}
	if err := errors.Join(w.slots(&r, committed), r.readUnits(committed)); err != nil {
		return r, err
	}
	for i := range r.Conns {
		c := &r.Conns[i]
		if err := errors.Join(w.pdus(c, o, committed), r.checkQueue(c)); err != nil {
			return r, fmt.Errorf("its connection in region %d: %w", c.n, err)
		}
	}
	inside := w.owners[mine:]
	for i := range r.Conns {
		c := &r.Conns[i]
		if err := errors.Join(w.input(&r, c, o), c.readBatch(&r, inside)); err != nil {
			return r, fmt.Errorf("its connection in region %d: %w", c.n, err)
		}
	}
	return r, nil
}

// slots reads the slots that are in use.
func (w *recovery) slots(r *RecoveredSession, committed uint64) error {
	j, s := w.j, r.Session
	used := j.load(s.at + sessionSlots)
	if used > Slots {
		return fmt.Errorf("%d slots were in use, of %d", used, Slots)
	}
	s.used = int(used)
	for n := uint16(1); n <= uint16(used); n++ {
		slot := s.slot(n)
		at, ok := j.inForce(slot+slotFirst, slot+slotOther, committed)
		if !ok {
			continue
		}
		t := RecoveredSlot{Number: n}
		conn, sense, r2ts := t.decode(j.m[at:])
		if t.Kind == 0 || t.Kind != Skipped && !r.has(conn, &t.Slot) || t.Queued && t.Out < r.headOf(t.Conn) {
			continue // free, of a connection that is over, or with the kernel
		}
		switch {
		case t.Kind > Management:
			return fmt.Errorf("slot %d has a request of kind %d", n, t.Kind)
		case t.Kind == Skipped && t.Queued:
			return fmt.Errorf("slot %d has a response without a connection", n)
		case sense > SenseLength || r2ts > maxR2T:
			return fmt.Errorf("slot %d has %d bytes of sense data and %d R2Ts", n, sense, r2ts)
		}
		t.Sense = append(t.Sense, j.m[slot+slotSense+2:][:sense]...)
		t.R2Ts = j.r2ts(slot, at == slot+slotOther, r2ts)
		t.Started = t.Kind == Command && !t.Queued && j.load(slot+slotStart) == t.Order+1
		o := owner{kind: ofSession, n: s.n}
		if err := errors.Join(w.own(t.Data, o), w.own(t.In, o)); err != nil {
			return fmt.Errorf("slot %d: %w", n, err)
		}
		s.slots.claim(int(n))
		r.Slots = append(r.Slots, t)
	}
	return nil
}

func (j *Journal) r2ts(slot int64, other bool, n int) (list []R2T) {
	at := slot + slotR2Ts
	if other {
		at += maxR2T * r2tLen
	}
	for i := range n {
		q := j.m[at+int64(i)*r2tLen:]
		list = append(list, R2T{le.Uint32(q), le.Uint32(q[4:]), le.Uint32(q[8:]), le.Uint32(q[12:])})
	}
	return list
}

// has finds the connection of a slot.
func (r *RecoveredSession) has(c slotConn, t *Slot) bool {
	for i := range r.Conns {
		if o := r.Conns[i].Conn; o.n == c.n && o.serial == c.serial {
			t.Conn = o
			return true
		}
	}
	return false
}

// headOf is the first place in the order of responses that is not with the kernel.
func (r *RecoveredSession) headOf(c *Conn) uint64 {
	for i := range r.Conns {
		if r.Conns[i].Conn == c {
			return r.Conns[i].head
		}
	}
	return 0
}

// readUnits reads the sets of logical units.
func (r *RecoveredSession) readUnits(committed uint64) error {
	j, s := r.j, r.Session
	r.Units = make(map[uint16][]uint64)
	for i := range int64(rows) {
		head := s.at + sessionRows + i*2*rowHead
		at, ok := j.inForce(head, head+rowHead, committed)
		if !ok {
			continue
		}
		code, words := le.Uint32(j.m[at+8:]), le.Uint32(j.m[at+12:])
		_, twice := r.Units[uint16(code)]
		if code == 0 || code > 0xffff || words > rowLen/8 || twice {
			return fmt.Errorf("a set of logical units has code %#x and %d words", code, words)
		}
		bits := s.at + rowsAt + i*2*rowLen
		if at != head {
			bits += rowLen
		}
		set := make([]uint64, words)
		for k := range set {
			from := bits
			if k < rowInline {
				from = at + 16
			}
			set[k] = le.Uint64(j.m[from+int64(k)*8:])
		}
		r.Units[uint16(code)] = set
	}
	return nil
}

// checkQueue checks that each place in the order of responses that is not with the kernel is one response's.
func (r *RecoveredSession) checkQueue(c *RecoveredConn) error {
	n := c.Record.OutTail - c.head
	if n > Slots+Places {
		return fmt.Errorf("%d responses are queued", n)
	}
	seen := newPlaces(int(n))
	left := n
	check := func(out uint64) error {
		if out < c.head || out >= c.Record.OutTail || !seen.claim(int(out-c.head)+1) {
			return fmt.Errorf("a response has place %d in a queue from %d to %d", out, c.head, c.Record.OutTail)
		}
		left--
		return nil
	}
	for i := range r.Slots {
		if t := &r.Slots[i]; t.Conn == c.Conn && t.Queued {
			if err := check(t.Out); err != nil {
				return err
			}
		}
	}
	for i := range c.PDUs {
		if err := check(c.PDUs[i].Out); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("%d of %d responses are missing", left, n)
	}
	return nil
}
