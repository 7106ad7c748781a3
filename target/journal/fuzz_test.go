// SPDX-License-Identifier: Apache-2.0

package journal

import "testing"

// FuzzRecover changes words of a journal at random. What is recovered of it is inside the arena and has one owner, and a
// session that goes on stores nothing outside of its regions, and reads back what it has stored.
func FuzzRecover(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0x10, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	m := newSample(f)
	for _, at := range []int64{
		m.s[0].at + sessionCommit, m.s[0].at + sessionSlots, m.s[0].at + sessionRows, m.s[0].slot(1) + slotFirst + 56, m.s[0].slot(2) + slotFirst + 136,
		m.c[0].at + connBatch, m.c[0].at + connInput, m.c[0].at + connPDUs, m.c[0].at + connRecords + 72, m.c[0].at + connStatic + staticConn,
		m.c[0].at + connBatches + batchPieces, m.u.at + unitFirst, atCommitted, atLastSerial, redoAt(2) + 8, m.j.g.word(ofConnection, 3),
	} {
		f.Add(le.AppendUint64(le.AppendUint32(nil, uint32(at)), 1<<63|255))
	}
	f.Fuzz(func(t *testing.T, words []byte) {
		m := newSample(t)
		for ; len(words) >= 12; words = words[12:] {
			m.j.at(int64(le.Uint32(words)) % int64(len(m.j.m)-7)).Store(le.Uint64(words[4:]))
		}
		if len(words) > 0 { // or the checksum would stop nearly all
			m.seal()
		}
		j, err := m.again(t)
		if err != nil {
			return
		}
		r, err := j.Recover(m.sockets)
		if err != nil {
			return
		}
		used := make(map[int64]bool)
		own(t, used, r)
		if err := j.Take(r); err != nil {
			t.Fatal(err)
		}
		for i := range r.Sessions {
			goOn(t, j, &r.Sessions[i])
		}
		j.stored = nil
		again, err := j.Recover(m.sockets)
		if err != nil || len(again.Sessions) != len(r.Sessions) || len(again.Units) != len(r.Units) {
			t.Fatalf("%d of %d sessions, %d of %d units are there again: %v %v", len(again.Sessions), len(r.Sessions), len(again.Units), len(r.Units), again.Dropped, err)
		}
		for i := range again.Sessions {
			if got := again.Sessions[i].Record.ExpCmdSN; got != 4711 {
				t.Errorf("what was committed is not in force: %d", got)
			}
		}
	})
}

// own notes what was recovered of the arena, in steps of a byte, as no test extent is long.
func own(t *testing.T, used map[int64]bool, r *Recovered) {
	add := func(e Extent) {
		if e.Length == 0 {
			return
		}
		if e.Offset < 0 || e.Offset+int64(e.Length) > testArena {
			t.Fatalf("%+v is outside of the arena", e)
		}
		for _, at := range []int64{e.Offset, e.Offset + int64(e.Length) - 1} {
			if used[at] && e.Length > 1 {
				t.Fatalf("%+v has two owners", e)
			}
			used[at] = true
		}
	}
	for _, s := range r.Sessions {
		add(s.Record.TextIn)
		add(s.Record.TextOut)
		for _, k := range s.Slots {
			add(k.Data)
			add(k.In)
		}
		for _, c := range s.Conns {
			add(c.Input.Chunk)
			for _, p := range c.PDUs {
				add(p.Data)
			}
		}
	}
	for _, u := range r.Units {
		add(u.State.Data)
	}
}

// goOn makes a transaction of a session, with all that it may use.
func goOn(t *testing.T, j *Journal, s *RecoveredSession) {
	j.stored = func(off, n int64) {
		inside := off >= s.at && off+n <= s.at+sessionSize
		for _, c := range s.Conns {
			inside = inside || off >= c.at && off+n <= c.at+connectionSize
		}
		if !inside {
			t.Fatalf("%d bytes are stored at %#x, outside of the session", n, off)
		}
	}
	s.Record.ExpCmdSN = 4711
	s.PutRecord(&s.Record)
	if n, ok := s.TakeSlot(); ok {
		s.PutSlot(n, &Slot{Kind: Skipped})
		s.Start(n, 1)
	}
	s.PutUnits(0x2a01, make([]uint64, rowLen/8))
	for i := range s.Conns {
		c := &s.Conns[i]
		if n, ok := c.TakePlace(); ok {
			s.PutPDU(c.Conn, n, &PDU{Out: c.Record.OutTail})
			c.Record.OutTail++
		}
		s.PutConn(c.Conn, &c.Record)
		c.Conn.Start(c.Record.Consumed)
	}
	s.Commit()
}
