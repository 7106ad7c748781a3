// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// Recovered is what is in force in a predecessor's journal.
type Recovered struct {
	LastTSIH uint16
	Sessions []RecoveredSession
	Units    []RecoveredUnit

	// Redo is a control transaction that is not applied everywhere; nil if there is none.
	Redo *State

	// Dropped says what can't go on, and why. Sockets that no recovered connection has are to be shut down.
	Dropped []error
}

// RecoveredUnit is a logical unit.
type RecoveredUnit struct {
	*Unit
	Static []byte
	State  State
}

// RecoveredSession is a session whose records are sound. Its Session may be used once the journal is taken.
type RecoveredSession struct {
	*Session
	Static []byte
	Record SessionRecord
	Units  map[uint16][]uint64 // see PutUnits
	Slots  []RecoveredSlot
	Conns  []RecoveredConn
}

// RecoveredSlot is a slot in use.
type RecoveredSlot struct {
	Slot
	Number  uint16
	Started bool // its I/O may have begun, or be over
}

// RecoveredConn is a connection whose socket is there.
type RecoveredConn struct {
	*Conn
	Static  []byte
	Cookie  uint64
	Record  ConnRecord
	Input   Input
	Read    uint64 // stream offset behind the last byte that was read
	Started bool   // the I/O of the PDU at Record.Consumed may have begun, or be over
	Batch   BatchRecord
	Unsent  []Piece        // of the batch, what the kernel does not have
	PDUs    []RecoveredPDU // queued behind what is sent, in no order

	taken uint64 // bytes of the batch that the kernel has
	sent  bool   // that is all
	head  uint64 // the first place in the order of responses that is not with the kernel in whole
}

// Piece is a piece of a batch: bytes of the journal, or a piece of the arena.
type Piece struct {
	Bytes []byte
	Data  Extent
}

// RecoveredPDU is a PDU in the queue of a connection.
type RecoveredPDU struct {
	PDU
	Number uint16
}

// most is what no number that is counted up reaches, so that sums of a few don't overflow.
const most = 1 << 60

// maxAhead is how far the bytes that have had their effect may be ahead of those that were read: a data segment that
// is passed over, its padding and digest.
const maxAhead = 1<<24 + 8

// recovery is the work of [Journal.Recover].
type recovery struct {
	j       *Journal
	sockets map[uint64]Position
	out     Recovered
	conns   map[uint32][]openConn // by session region
	owners  []owner
	done    map[uint64]bool // cookies
}

// Recover reads what is in force and changes nothing. sockets has the positions of the connections that still are, by cookie: what
// belongs to others is over. An error says that nothing of the journal can be used.
func (j *Journal) Recover(sockets map[uint64]Position) (*Recovered, error) {
	w := recovery{j: j, sockets: sockets, conns: make(map[uint32][]openConn), done: make(map[uint64]bool)}
	w.out.LastTSIH = uint16(j.load(atLastTSIH))
	if last := j.load(atLastSerial); last >= most {
		return nil, fmt.Errorf("journal: the control area is damaged: the last region has number %d", last)
	}
	if err := w.control(); err != nil {
		return nil, err
	}
	w.findConns()
	w.eachOpen(ofSession, func(n uint32, serial uint64) error {
		s, err := w.session(n, serial)
		if err == nil {
			w.out.Sessions = append(w.out.Sessions, s)
		}
		return err
	})
	w.eachOpen(ofUnit, func(n uint32, _ uint64) error {
		u, err := w.unit(n)
		if err == nil {
			w.out.Units = append(w.out.Units, u)
		}
		return err
	})
	if err := w.disjoint(); err != nil {
		return nil, err
	}
	return &w.out, nil
}

// eachOpen calls f for each open region of a kind, and drops that one if there is an error.
func (w *recovery) eachOpen(kind int, f func(n uint32, serial uint64) error) {
	j := w.j
	last := j.load(atLastSerial)
	for n := uint32(1); n <= j.g.regions[kind]; n++ {
		serial := j.load(j.g.word(kind, n))
		if serial == 0 {
			continue
		}
		err := fmt.Errorf("its number is %d, and the last one that was given is %d", serial, last)
		if serial <= last {
			err = f(n, serial)
		}
		if err != nil {
			w.out.Dropped = append(w.out.Dropped, fmt.Errorf("journal: the %s in region %d is dropped: %w", kindName[kind], n, err))
		}
	}
}

func (w *recovery) control() error {
	committed, applied := w.j.load(atCommitted), w.j.load(atApplied)
	switch {
	case committed == 0 || committed >= most || applied != committed && applied != committed-1:
		return fmt.Errorf("journal: the control area is damaged: control transaction %d is committed, and %d is applied", committed, applied)
	case applied == committed:
		return nil
	}
	st, ok := w.j.getState(redoAt(committed), redoSize)
	if !ok || st.LSN != committed {
		return fmt.Errorf("journal: control transaction %d is damaged: its checksum is wrong", committed)
	}
	w.out.Redo = &st
	return w.own(st.Data, owner{kind: ofControl})
}

// openConn is a connection's region.
type openConn struct {
	n                      uint32
	serial                 uint64
	err                    error // why its session can't go on
	cookie                 uint64
	birth                  Position
	static                 []byte
	session, sessionSerial uint64
}

// findConns finds out which connections each session has.
func (w *recovery) findConns() {
	w.eachOpen(ofConnection, func(n uint32, serial uint64) error {
		c := openConn{n: n, serial: serial}
		p := w.j.m[w.j.g.region(ofConnection, n)+connStatic:][:connPlaces-connStatic]
		length := le.Uint32(p[staticConn:])
		if length > maxStaticC || le.Uint32(p[staticConn+4:]) != staticSum(p, int(length)) {
			return errors.New("what never changes of it has a wrong checksum")
		}
		c.session, c.sessionSerial, c.cookie = le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:])
		c.birth = Position{le.Uint64(p[24:]), le.Uint64(p[32:])}
		c.static = append(c.static, p[staticConn+staticHead:][:length]...)
		if c.session < 1 || c.session > uint64(w.j.g.regions[ofSession]) || w.j.load(w.j.g.word(ofSession, uint32(c.session))) != c.sessionSerial {
			return fmt.Errorf("its session, in region %d, is over", c.session)
		}
		if _, ok := w.sockets[c.cookie]; !ok {
			return errors.New("its socket is closed")
		}
		if w.done[c.cookie] {
			c.err = fmt.Errorf("the connection in region %d has the socket of another one", n)
		}
		w.done[c.cookie] = true
		w.conns[uint32(c.session)] = append(w.conns[uint32(c.session)], c)
		return nil
	})
}

// static reads what never changes.
func (j *Journal) static(at int64, room uint32) ([]byte, error) {
	p := j.m[at:][:staticHead+int64(room)]
	n := le.Uint32(p)
	if n > room || le.Uint32(p[4:]) != crc32.Checksum(p[staticHead:][:n], castagnoli) {
		return nil, errors.New("what never changes of it has a wrong checksum")
	}
	return append([]byte(nil), p[staticHead:][:n]...), nil
}

func (w *recovery) unit(n uint32) (u RecoveredUnit, err error) {
	j := w.j
	u.Unit = &Unit{j: j, at: j.g.region(ofUnit, n), n: n}
	if u.Static, err = j.static(u.at+unitStatic, maxStaticU); err != nil {
		return u, err
	}
	first, other := u.at+unitFirst, u.at+unitFirst+unitVersion
	at, ok := j.inForce(first, other, j.load(atCommitted))
	if !ok {
		return u, errors.New("it has no state")
	}
	if u.State, ok = j.getState(at, unitVersion); !ok {
		// The predecessor may have died in the midst of the store that the redo record is for.
		if w.out.Redo == nil || le.Uint64(j.m[at:]) != w.out.Redo.LSN {
			return u, errors.New("its state has a wrong checksum")
		}
		if u.State, ok = j.getState(first+other-at, unitVersion); !ok || u.State.LSN >= w.out.Redo.LSN {
			return u, errors.New("its state has a wrong checksum, and so has the one before")
		}
	}
	return u, w.own(u.State.Data, owner{kind: ofUnit, n: n})
}
