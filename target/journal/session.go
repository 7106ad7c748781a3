// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"hash/crc32"
)

// The region of a session.
const (
	sessionCommit  = 0  // word: the transactions up to this one are in force
	sessionSlots   = 64 // word: slots that were ever in use are up to this one
	sessionRecords = 128
	sessionRows    = 384 // heads of the sets of logical units
	sessionStatic  = sessionRows + rows*2*rowHead
	maxStatic      = pageSize - sessionStatic - staticHead

	staticHead = 8 // length and CRC

	rows      = 24
	rowInline = 3                // words that stand in the head: LUNs up to 191
	rowHead   = 16 + rowInline*8 // tag, code and number of words of a version
	rowLen    = 2 << 10          // one bit for each LUN that there can be
	rowsAt    = pageSize

	// Slots are how many a session has: the widest window, immediate commands, and requests whose response is deferred.
	Slots     = 4096 + 16 + 16
	slotsAt   = rowsAt + rows*2*rowLen
	slotSize  = 1 << 10
	slotStart = 0 // word: the command's I/O has begun
	slotFirst = 64
	slotOther = slotFirst + 192
	slotR2Ts  = slotOther + 192 // of the first version, and of the other
	slotSense = slotR2Ts + 2*maxR2T*r2tLen

	sessionSize = slotsAt + Slots*slotSize
)

// A Session is the region of one session. What its transactions are made of is called under the mutex of the
// session that it belongs to, as is TakeSlot.
type Session struct {
	j      *Journal
	at     int64
	n      uint32
	serial uint64
	tag    uint64 // of the transaction that is under way
	slots  places
	used   int // slots that were ever in use
}

// OpenSession takes a region for a session. static is what never changes, CBOR of the owner.
func (j *Journal) OpenSession(static []byte, r *SessionRecord) (*Session, error) {
	if len(static) > maxStatic {
		return nil, fmt.Errorf("journal: a session's names and parameters have %d bytes, and there is room for %d", len(static), maxStatic)
	}
	n, serial, err := j.open(ofSession)
	if err != nil {
		return nil, err
	}
	s := &Session{j: j, at: j.g.region(ofSession, n), n: n, serial: serial, tag: 1, slots: newPlaces(Slots)}
	j.putStatic(s.at+sessionStatic, static)
	s.PutRecord(r)
	s.Commit()
	j.store(j.g.word(ofSession, n), serial)
	return s, nil
}

// putStatic writes bytes with their length and CRC.
func (j *Journal) putStatic(at int64, b []byte) {
	p := j.m[at:]
	le.PutUint32(p, uint32(len(b)))
	le.PutUint32(p[4:], crc32.Checksum(b, castagnoli))
	copy(p[staticHead:], b)
	j.wrote(at, staticHead+int64(len(b)))
}

// Close gives the region back. The connections' regions are closed before.
func (s *Session) Close() error { return s.j.close(ofSession, s.n) }

// Commit puts in force what the transaction has put.
func (s *Session) Commit() {
	s.j.store(s.at+sessionCommit, s.tag)
	s.tag++
}

// PutRecord changes the session's record.
func (s *Session) PutRecord(r *SessionRecord) {
	at := s.j.stale(s.at+sessionRecords, s.at+sessionRecords+128, s.tag)
	p := s.j.m[at : at+sessionRecordLen]
	le.PutUint64(p, s.tag)
	r.encode(p)
	s.j.wrote(at, sessionRecordLen)
}

// PutConn changes the record of one of the session's connections.
func (s *Session) PutConn(c *Conn, r *ConnRecord) {
	at := s.j.stale(c.at+connRecords, c.at+connRecords+64, s.tag)
	p := s.j.m[at : at+connRecordLen]
	le.PutUint64(p, s.tag)
	r.encode(p)
	s.j.wrote(at, connRecordLen)
}

func (s *Session) slot(n uint16) int64 { return s.at + slotsAt + numbered(n, Slots)*slotSize }

// numbered turns a number from 1 to most into an index. Any other is a fault of the program, which would write over
// another session.
func numbered(n uint16, most int) int64 {
	if n < 1 || int(n) > most {
		panic("journal: there is no slot or place with this number")
	}
	return int64(n - 1)
}

// TakeSlot returns the number of a free slot, from 1 on; false if there is none.
func (s *Session) TakeSlot() (n uint16, ok bool) {
	i, ok := s.slots.take()
	if i > s.used {
		s.used = i
		s.j.store(s.at+sessionSlots, uint64(i)) // before it is written: a successor looks no further
	}
	return uint16(i), ok
}

// GiveSlot frees a slot that is cleared, or whose response is with the kernel.
func (s *Session) GiveSlot(n uint16) { s.slots.give(int(n)) }

// PutSlot changes a slot.
func (s *Session) PutSlot(n uint16, r *Slot) {
	slot := s.slot(n)
	at := s.j.stale(slot+slotFirst, slot+slotOther, s.tag)
	p := s.j.m[at : at+slotRecordLen]
	le.PutUint64(p, s.tag)
	r.encode(p)
	s.j.wrote(at, slotRecordLen)
	if len(r.R2Ts) > 0 {
		s.putR2Ts(slot, at == slot+slotOther, r.R2Ts)
	}
	if len(r.Sense) > 0 {
		s.putSense(slot, r.Sense)
	}
}

func (s *Session) putR2Ts(slot int64, other bool, list []R2T) {
	at := slot + slotR2Ts
	if other {
		at += maxR2T * r2tLen
	}
	p := s.j.m[at : at+maxR2T*r2tLen]
	for i, r := range list {
		q := p[i*r2tLen:]
		le.PutUint32(q, r.TTT)
		le.PutUint32(q[4:], r.Offset)
		le.PutUint32(q[8:], r.Length)
		le.PutUint32(q[12:], r.DataSN)
	}
	s.j.wrote(at, int64(len(list)*r2tLen))
}

// putSense writes the data segment that carries sense data (RFC 7143 11.4.7), as it is sent.
func (s *Session) putSense(slot int64, sense []byte) {
	at := slot + slotSense
	p := s.j.m[at : at+2+SenseLength]
	copy(p[2:2+len(sense)], sense)
	p[0], p[1] = byte(len(sense)>>8), byte(len(sense))
	s.j.wrote(at, 2+int64(len(sense)))
}

// SenseSegment is the data segment with the sense data of a slot.
func (s *Session) SenseSegment(n uint16) []byte {
	p := s.j.m[s.slot(n)+slotSense:][:2+SenseLength]
	return p[:2+min(SenseLength, int(p[0])<<8|int(p[1]))]
}

// ClearSlot ends a slot without an answer. The caller gives it after the commit.
func (s *Session) ClearSlot(n uint16) { s.PutSlot(n, &Slot{}) }

// Start notes that the I/O of a slot's command begins: it holds its range of blocks until the commit.
func (s *Session) Start(n uint16, order uint64) { s.j.store(s.slot(n)+slotStart, order+1) }

// Prevented is the code of the logical units of which the session prevents the removal of the medium; other codes are
// those of unit attentions, ASC<<8 | ASCQ.
const Prevented = 1

// PutUnits changes the set of the logical units for which a code is true, as bits. It reports false if the
// session has had 24 other codes already.
func (s *Session) PutUnits(code uint16, set []uint64) bool {
	row, ok := s.row(code)
	if !ok || len(set) > rowLen/8 {
		return false
	}
	head := s.at + sessionRows + int64(row)*2*rowHead
	at := s.j.stale(head, head+rowHead, s.tag)
	bits := s.at + rowsAt + int64(row)*2*rowLen
	if at != head {
		bits += rowLen
	}
	p := s.j.m[at : at+rowHead]
	le.PutUint64(p, s.tag)
	le.PutUint32(p[8:], uint32(code))
	le.PutUint32(p[12:], uint32(len(set)))
	for i, w := range set[:min(rowInline, len(set))] {
		le.PutUint64(p[16+i*8:], w)
	}
	s.j.wrote(at, rowHead)
	if len(set) > rowInline {
		for i := rowInline; i < len(set); i++ {
			le.PutUint64(s.j.m[bits+int64(i)*8:], set[i])
		}
		s.j.wrote(bits, int64(len(set))*8)
	}
	return true
}

// row returns which row a code has, or will have: it keeps it.
func (s *Session) row(code uint16) (int, bool) {
	for i := range rows {
		p := s.j.m[s.at+sessionRows+int64(i)*2*rowHead:]
		first, other := le.Uint32(p[8:]), le.Uint32(p[rowHead+8:])
		if first == 0 && other == 0 || first == uint32(code) || other == uint32(code) {
			return i, true
		}
	}
	return 0, false
}
