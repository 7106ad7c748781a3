// SPDX-License-Identifier: Apache-2.0

package power

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
)

// A model knows what each block of a logical unit may hold after a power cut: what it was
// promised to hold, or anything that was written to it later, whether that was
// answered or not. Changes of one block don't overlap. Blocks are those of the disk here, which
// writes each of them whole; those of the logical unit may be longer.
type model struct {
	lun       uint16
	blockSize int

	mu      sync.Mutex // protects what follows
	now     []byte     // what reads give
	blocks  []history
	changed map[int]struct{} // blocks whose history has more than one content
	clock   uint64           // of answers
	number  uint64           // of the last stamp
}

// A history is what a block may hold; the first content is what was promised.
type history []content

type content struct {
	sum      uint64
	answered uint64 // when the change was answered; 0: it was not
	number   uint64 // of the stamp; 0: it has none
}

var hashSeed = maphash.MakeSeed()

func sum(block []byte) uint64 { return maphash.Bytes(hashSeed, block) }

// newModel is of a logical unit whose blocks hold zeros, durably.
func newModel(lun uint16, blockSize int, bytes int64) *model {
	m := &model{lun: lun, blockSize: blockSize, changed: make(map[int]struct{})}
	m.grow(bytes)
	return m
}

// grow adds blocks of zeros, durably, if bytes is more than there is: of two sizes that were
// asked for, a power cut may leave the lesser one.
func (m *model) grow(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = append(m.now, make([]byte, max(bytes-int64(len(m.now)), 0))...)
	zeros := content{sum: sum(make([]byte, m.blockSize)), answered: 1}
	for len(m.blocks) < len(m.now)/m.blockSize {
		m.blocks = append(m.blocks, history{zeros})
	}
}

// count is how many blocks there are.
func (m *model) count() int { return len(m.blocks) }

// stamp fills blocks, the first of which is lba, with what no other write has.
func (m *model) stamp(p []byte, lba int) {
	m.mu.Lock()
	m.number++
	number := m.number
	m.mu.Unlock()
	for at := 0; at < len(p); at += m.blockSize {
		stampBlock(p[at:at+m.blockSize], m.lun, uint64(lba+at/m.blockSize), number)
	}
}

const stampMagic = 0x506f776572437574

func stampBlock(b []byte, lun uint16, lba, number uint64) {
	binary.LittleEndian.PutUint64(b, stampMagic)
	binary.LittleEndian.PutUint64(b[8:], uint64(lun)<<48|lba)
	binary.LittleEndian.PutUint64(b[16:], number)
	word := uint64(lun)<<48 ^ lba<<20 ^ number<<1 | 1
	for at := 24; at < len(b); at += 8 {
		word ^= word << 13
		word ^= word >> 7
		word ^= word << 17
		binary.LittleEndian.PutUint64(b[at:], word)
	}
}

// describe says what a block holds, for messages.
func describe(b []byte) string {
	zero := true
	for _, c := range b {
		zero = zero && c == 0
	}
	switch {
	case zero:
		return "zeros"
	case binary.LittleEndian.Uint64(b) != stampMagic:
		return fmt.Sprintf("%x...", b[:16])
	}
	where, number := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	whole := make([]byte, len(b))
	stampBlock(whole, uint16(where>>48), where&(1<<48-1), number)
	torn := ""
	if sum(whole) != sum(b) {
		torn = ", not wholly"
	}
	return fmt.Sprintf("write %d of LUN %d block %d%s", number, where>>48, where&(1<<48-1), torn)
}

// copyNow copies what blocks hold.
func (m *model) copyNow(p []byte, lba int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.now[lba*m.blockSize:])
}

// begin notes that blocks are about to be changed to what is in p.
func (m *model) begin(p []byte, lba int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.now[lba*m.blockSize:], p)
	for i := range len(p) / m.blockSize {
		b := p[i*m.blockSize : (i+1)*m.blockSize]
		c := content{sum: sum(b)}
		if binary.LittleEndian.Uint64(b) == stampMagic {
			c.number = binary.LittleEndian.Uint64(b[16:])
		}
		m.blocks[lba+i] = append(m.blocks[lba+i], c)
		m.changed[lba+i] = struct{}{}
	}
}

// end notes that the change of n blocks that has begun last was answered. It is promised
// then if it is durable.
func (m *model) end(lba, n int, durable bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock++
	for i := lba; i < lba+n; i++ {
		h := m.blocks[i]
		h[len(h)-1].answered = m.clock + 1
		if durable {
			m.blocks[i] = append(h[:0], h[len(h)-1])
			delete(m.changed, i)
		}
	}
}

// flushing begins a flush, and returns what it will have flushed.
func (m *model) flushing() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock + 1
}

// flushed notes that a flush was answered: changes that were answered before it began are promised.
func (m *model) flushed(until uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.changed {
		h := m.blocks[i]
		for at := len(h) - 1; at > 0; at-- {
			if h[at].answered != 0 && h[at].answered <= until {
				m.blocks[i] = append(h[:0], h[at:]...)
				break
			}
		}
		if len(m.blocks[i]) == 1 {
			delete(m.changed, i)
		}
	}
}

// A verdict is what was found of the blocks of a logical unit.
type verdict struct {
	blocks   int
	unsure   int      // that might have held more than one content
	lost     int      // that have lost a change which was answered and not promised
	failures []string // blocks that hold what they may not, the first few
	failed   int      // how many of those
}

// maxFailures is how many blocks a verdict names.
const maxFailures = 4

// compare compares what was read of blocks with what they may hold. What they hold is what they are
// promised to hold from then on if it is durable: after a power cut nothing is in a cache. Otherwise
// it is what an answered change has left, which a flush will have flushed.
func (m *model) compare(v *verdict, p []byte, lba int, durable bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range len(p) / m.blockSize {
		b := p[i*m.blockSize : (i+1)*m.blockSize]
		h, found := m.blocks[lba+i], -1
		s := sum(b)
		for at := len(h) - 1; at >= 0 && found < 0; at-- {
			if h[at].sum == s {
				found = at
			}
		}
		v.blocks++
		if len(h) > 1 {
			v.unsure++
		}
		if found < 0 {
			v.fail(fmt.Sprintf("LUN %d block %d holds %s, was promised %s, and may hold one of %d later writes",
				m.lun, lba+i, describe(b), h[0], len(h)-1))
			h, found = append(h, content{sum: s}), len(h)
		}
		for at := found + 1; at < len(h); at++ {
			if h[at].answered != 0 {
				v.lost++
				break
			}
		}
		m.settle(lba+i, h, found, durable)
		copy(m.now[(lba+i)*m.blockSize:], b)
	}
}

// settle makes what was found in a block the last content; the lock is held.
func (m *model) settle(block int, h history, found int, durable bool) {
	c := h[found]
	c.answered = m.clock + 1
	if durable {
		m.blocks[block] = append(h[:0], c)
		delete(m.changed, block)
		return
	}
	if len(h) > 1 {
		m.blocks[block] = append(h, c)
	}
}

func (c content) String() string {
	if c.number == 0 {
		return "something without a stamp"
	}
	return fmt.Sprintf("write %d", c.number)
}

func (v *verdict) fail(text string) {
	if v.failed++; len(v.failures) < maxFailures {
		v.failures = append(v.failures, text)
	}
}

// add adds another logical unit's verdict.
func (v *verdict) add(o verdict) {
	v.blocks += o.blocks
	v.unsure += o.unsure
	v.lost += o.lost
	v.failed += o.failed
	v.failures = append(v.failures, o.failures...)
	v.failures = v.failures[:min(len(v.failures), maxFailures)]
}
