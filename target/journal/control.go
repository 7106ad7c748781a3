// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// The region of a logical unit, and in it the two versions of its state.
const (
	unitStatic  = 0
	unitFirst   = 1024
	unitVersion = 1536
	maxStaticU  = unitFirst - staticHead

	unitSize = pageSize
)

// State is the state of a logical unit, or what a control transaction does: CBOR of the owner, and what of that has a
// buffer of its own because it is long.
type State struct {
	LSN  uint64 // of the control transaction
	Body []byte
	Data Extent
}

// stateHead is what stands in front of the body: LSN, length, CRC, extent.
const stateHead = redoHead

func (j *Journal) putState(at, room int64, st *State) error {
	if n := int64(len(st.Body)); n > room-stateHead {
		return fmt.Errorf("journal: a state of %d bytes needs a buffer of its own: there is room for %d", n, room-stateHead)
	}
	p := j.m[at : at+room]
	le.PutUint64(p, st.LSN)
	le.PutUint32(p[8:], uint32(len(st.Body)))
	st.Data.encode(p[16:])
	copy(p[stateHead:], st.Body)
	le.PutUint32(p[12:], stateSum(p, len(st.Body)))
	j.wrote(at, stateHead+int64(len(st.Body)))
	return nil
}

// stateSum is the CRC of all but itself.
func stateSum(p []byte, n int) uint32 {
	sum := crc32.Update(0, castagnoli, p[:12])
	return crc32.Update(sum, castagnoli, p[16:stateHead+n])
}

// getState reads a state, false if it is damaged or was never written in whole.
func (j *Journal) getState(at, room int64) (st State, ok bool) {
	p := j.m[at : at+room]
	n := le.Uint32(p[8:])
	if int64(n) > room-stateHead || le.Uint32(p[12:]) != stateSum(p, int(n)) {
		return st, false
	}
	st.LSN = le.Uint64(p)
	st.Data.decode(p[16:])
	st.Body = append(st.Body, p[stateHead:][:n]...)
	return st, st.LSN > 0
}

func redoAt(lsn uint64) int64 { return atRedo + int64(lsn&1)*redoSize }

// BeginControl commits a control transaction: what body says will be done, by a successor if not by this process. It is
// applied to its home places next, and [Journal.EndControl] ends it. There is one at a time.
func (j *Journal) BeginControl(body []byte, data Extent) (lsn uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.load(atApplied) != j.lsn {
		return 0, errors.New("journal: a control transaction is under way: end it first")
	}
	if err := j.putState(redoAt(j.lsn+1), redoSize, &State{LSN: j.lsn + 1, Body: body, Data: data}); err != nil {
		return 0, err
	}
	j.lsn++
	j.store(atCommitted, j.lsn)
	return j.lsn, nil
}

// EndControl says that the control transaction is applied everywhere.
func (j *Journal) EndControl() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.store(atApplied, j.lsn)
}

// A Unit is the region of one logical unit.
type Unit struct {
	j  *Journal
	at int64
	n  uint32
}

// OpenUnit takes a region for a logical unit. static says which it is, CBOR of the owner.
func (j *Journal) OpenUnit(static []byte, st *State) (*Unit, error) {
	if len(static) > maxStaticU {
		return nil, fmt.Errorf("journal: a logical unit's names have %d bytes, and there is room for %d", len(static), maxStaticU)
	}
	n, serial, err := j.open(ofUnit)
	if err != nil {
		return nil, err
	}
	u := &Unit{j: j, at: j.g.region(ofUnit, n), n: n}
	j.putStatic(u.at+unitStatic, static)
	if err := u.Put(st); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	j.store(j.g.word(ofUnit, n), serial)
	return u, nil
}

// Put writes the state that a control transaction has given the logical unit. The first one has the LSN of the last
// control transaction that is over. The same one may be written again.
func (u *Unit) Put(st *State) error {
	first, other := u.at+unitFirst, u.at+unitFirst+unitVersion
	return u.j.putState(u.j.stale(first, other, st.LSN), unitVersion, st)
}

// Close gives the region back.
func (u *Unit) Close() error { return u.j.close(ofUnit, u.n) }

// LSN is that of the last control transaction.
func (j *Journal) LSN() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lsn
}
