// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ofControl is the kind of owner that is no region.
const ofControl = kinds

// owner is who has a piece of the arena.
type owner struct {
	Extent
	kind int
	n    uint32 // region
}

// has tells whether another piece lies in this one.
func (e Extent) has(o Extent) bool {
	return e.Length > 0 && o.Offset >= e.Offset && o.Offset+int64(o.Length) <= e.Offset+int64(e.Length)
}

// own notes who has a piece of the arena.
func (w *recovery) own(e Extent, o owner) error {
	if e.Length == 0 {
		return nil
	}
	if e.Offset < 0 || e.Offset > w.j.arena-int64(e.Length) {
		return fmt.Errorf("%d bytes at %d are not in the arena, which has %d", e.Length, e.Offset, w.j.arena)
	}
	o.Extent = e
	w.owners = append(w.owners, o)
	return nil
}

// disjoint drops those that have the same piece of the arena. There is no telling whose it is.
func (w *recovery) disjoint() error {
	slices.SortFunc(w.owners, func(a, b owner) int { return cmp.Compare(a.Offset, b.Offset) })
	type region struct {
		kind int
		n    uint32
	}
	guilty := make(map[region]error)
	var last owner // the one that reaches farthest
	for _, o := range w.owners {
		if last.Length > 0 && o.Offset < last.Offset+int64(last.Length) {
			err := fmt.Errorf("the bytes at %d of the arena have two owners", o.Offset)
			guilty[region{o.kind, o.n}], guilty[region{last.kind, last.n}] = err, err
		}
		if o.Offset+int64(o.Length) > last.Offset+int64(last.Length) {
			last = o
		}
	}
	if err := guilty[region{ofControl, 0}]; err != nil {
		return fmt.Errorf("journal: a control transaction is damaged: %w", err)
	}
	drop := func(kind int, n uint32) bool {
		err := guilty[region{kind, n}]
		if err != nil {
			w.out.Dropped = append(w.out.Dropped, fmt.Errorf("journal: the %s in region %d is dropped: %w", kindName[kind], n, err))
		}
		return err != nil
	}
	w.out.Sessions = slices.DeleteFunc(w.out.Sessions, func(s RecoveredSession) bool { return drop(ofSession, s.n) })
	w.out.Units = slices.DeleteFunc(w.out.Units, func(u RecoveredUnit) bool { return drop(ofUnit, u.n) })
	return nil
}

// Take makes the journal this process's, with what was recovered: the rest is over. It may be repeated by a
// successor if the process dies in it.
func (j *Journal) Take(r *Recovered) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.owned {
		return errors.New("journal: it is this process's already")
	}
	j.store(atEpoch, j.load(atEpoch)+1)
	for i := range r.Sessions {
		s := &r.Sessions[i]
		j.free[ofSession].claim(int(s.n))
		for k := range s.Conns {
			j.free[ofConnection].claim(int(s.Conns[k].n))
		}
	}
	for i := range r.Units {
		j.free[ofUnit].claim(int(r.Units[i].n))
	}
	for k := range kinds {
		if err := j.cleanFreeLocked(k); err != nil {
			return fmt.Errorf("journal: regions of kind %s can't be used: %w", kindName[k], err)
		}
	}
	for i := range r.Sessions {
		r.Sessions[i].void()
	}
	j.lsn, j.owned = j.load(atCommitted), true
	return nil
}

// cleanFreeLocked closes the regions of a kind that are free, and makes zeros of them.
func (j *Journal) cleanFreeLocked(kind int) error {
	n := j.g.regions[kind]
	from := uint32(0) // the regions from here on are free
	for i := uint32(1); i <= n+1; i++ {
		if i <= n && j.free[kind].free(int(i)) {
			if w := j.g.word(kind, i); j.load(w) != 0 {
				j.store(w, 0)
			}
			if from == 0 {
				from = i
			}
			continue
		}
		if from > 0 {
			if err := j.clean(j.g.region(kind, from), int64(i-from)*regionSize[kind]); err != nil {
				return err
			}
		}
		from = 0
	}
	return nil
}

// void takes back the transaction that was under way. The next one has its tag, and would commit what is left of it.
func (r *RecoveredSession) void() {
	s := r.Session
	s.voidTag(s.at + sessionRecords)
	s.voidTag(s.at + sessionRecords + 128)
	for i := range int64(2 * rows) {
		s.voidTag(s.at + sessionRows + i*rowHead)
	}
	for n := 1; n <= s.used; n++ {
		slot := s.slot(uint16(n))
		s.voidTag(slot + slotFirst)
		s.voidTag(slot + slotOther)
	}
	for i := range r.Conns {
		c := r.Conns[i].Conn
		s.voidTag(c.at + connRecords)
		s.voidTag(c.at + connRecords + 64)
		for n := 1; n <= c.used; n++ {
			s.voidTag(c.place(uint16(n)))
		}
	}
}

func (s *Session) voidTag(at int64) {
	if s.j.load(at) >= s.tag {
		s.j.store(at, 0)
	}
}
