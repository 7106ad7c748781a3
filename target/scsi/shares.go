// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// MaxShares is how many pairs of an initiator and a logical unit a process counts by themselves.
// Initiators choose their names: what further pairs do is counted together, a row for each device.
const MaxShares = 4096

// A ShareLimit bounds the shares of the devices that have it in common. The zero ShareLimit
// is ready to use.
type ShareLimit struct{ taken atomic.Int64 }

// take reports whether there is room for one more.
func (l *ShareLimit) take() bool {
	if l.taken.Add(1) <= MaxShares {
		return true
	}
	l.taken.Add(-1)
	return false
}

// A Share is what an initiator has moved to and from a logical unit since the start, over handoffs and
// sessions.
type Share struct {
	Initiator    string `cbor:"1,keyasint" json:"initiator_name"` // "" for all that have no row of their own
	LUN          uint16 `cbor:"2,keyasint" json:"lun"`
	Reads        uint64 `cbor:"3,keyasint" json:"reads"`
	Writes       uint64 `cbor:"4,keyasint" json:"writes"`
	ReadBytes    uint64 `cbor:"5,keyasint" json:"read_bytes"`
	WrittenBytes uint64 `cbor:"6,keyasint" json:"written_bytes"`
}

// share is a Share in the making.
type share struct{ moves }

// pair names a share.
type pair struct {
	initiator string
	lun       uint16
}

// shares are those of a device. They outlive sessions.
type shares struct {
	limit *ShareLimit
	other share // of pairs that found no room

	mu   sync.Mutex // protects rows
	rows map[pair]*share
}

// of returns the share of a pair, the common one if there is no room for it.
func (s *shares) of(p pair) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rows[p]; r != nil {
		return r
	}
	if !s.limit.take() {
		return &s.other
	}
	r := new(share)
	if s.rows == nil {
		s.rows = make(map[pair]*share)
	}
	s.rows[p] = r
	return r
}

// Shares returns what initiators have moved, by initiator and logical unit; what is counted
// together comes last.
func (d *Device) Shares() []Share {
	s := &d.shares
	s.mu.Lock()
	rows := maps.Clone(s.rows)
	s.mu.Unlock()
	list := make([]Share, 0, len(rows)+1)
	for p, r := range rows {
		list = append(list, r.load(p))
	}
	slices.SortFunc(list, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.Initiator, b.Initiator), cmp.Compare(a.LUN, b.LUN))
	})
	if other := s.other.load(pair{}); other != (Share{}) {
		list = append(list, other)
	}
	return list
}

// restore counts what another process has counted, for the logical units that are the same.
func (s *shares) restore(list []Share, kept map[uint16]bool) {
	for _, c := range list {
		r := &s.other
		if c.Initiator != "" {
			if !kept[c.LUN] {
				continue
			}
			r = s.of(pair{c.Initiator, c.LUN})
		}
		r.reads.Add(c.Reads)
		r.writes.Add(c.Writes)
		r.readBytes.Add(c.ReadBytes)
		r.writtenBytes.Add(c.WrittenBytes)
	}
}

func (s *share) load(p pair) Share {
	return Share{p.initiator, p.lun, s.reads.Load(), s.writes.Load(), s.readBytes.Load(), s.writtenBytes.Load()}
}

// share returns where the nexus counts what it moves to and from a logical unit. It is looked up
// once: commands only read the map. When the bound is reached, what the nexus has no row of yet is
// counted together, and nothing is kept for it.
func (n *Nexus) share(lun uint16) *share {
	m := n.shares.Load()
	if m != nil {
		if s := (*m)[lun]; s != nil {
			return s
		}
	}
	if n.unshared.Load() {
		return &n.dev.shares.other
	}
	s := n.dev.shares.of(pair{n.id.Initiator, lun})
	if s == &n.dev.shares.other {
		n.unshared.Store(true)
		return s
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	next := make(map[uint16]*share)
	if m := n.shares.Load(); m != nil {
		maps.Copy(next, *m)
	}
	next[lun] = s
	n.shares.Store(&next)
	return s
}

// countRead counts bytes that the command has read, countWritten those that it has written.
func (c *Command) countRead(bytes int) {
	if b := c.exec.batch; b != nil {
		b.moved.Reads++
		b.moved.ReadBytes += uint64(bytes)
		return
	}
	c.count(&Counters{Reads: 1, ReadBytes: uint64(bytes)})
}

func (c *Command) countWritten(bytes int) {
	if b := c.exec.batch; b != nil {
		b.moved.Writes++
		b.moved.WrittenBytes += uint64(bytes)
		return
	}
	c.count(&Counters{Writes: 1, WrittenBytes: uint64(bytes)})
}

// count counts what the command has moved.
func (c *Command) count(m *Counters) {
	n, at := c.exec.nexus, c.exec.at
	at.lu.stats.add(m)
	n.stats.add(m)
	n.share(at.number).add(m)
}
