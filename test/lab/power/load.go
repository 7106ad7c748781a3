// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

const (
	// maxWrite is the longest write, in bytes.
	maxWrite = 1 << 20
	// workers is how many commands that change blocks a logical unit has at a time, each in a
	// region of its own.
	workers = 2
	// answerTime is how long a command may take: longer than an upgrade does under emulation.
	answerTime = 2 * time.Minute
)

// A unit is a logical unit under load.
type unit struct {
	*model
	blockSize int  // bytes; LBAs count in these, the model in blocks of the disk
	thin      bool // it has UNMAP (LBPME)
	through   bool // configured without a write cache

	// mode keeps changes of the write cache and other commands apart: what a command promises
	// depends on it.
	mode  sync.RWMutex
	cache bool   // WCE, as last acknowledged
	page  []byte // the Caching mode page

	session *initiator.Session
	counts  *counts
	off     *atomic.Bool // the end of the session is meant
}

// counts are how many commands of each kind were acknowledged.
type counts struct {
	mu sync.Mutex // protects what follows
	of map[string]int
}

func (c *counts) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[kind]++
}

// attach gives the unit a session, in which its state is as after a power-on or not.
func (u *unit) attach(ctx context.Context, s *initiator.Session) error {
	u.session = s
	if err := s.Settle(ctx, initiator.LUN(u.lun)); err != nil {
		return fmt.Errorf("LUN %d is not ready: %w", u.lun, err)
	}
	in := make([]byte, 64)
	cmd := senseCache(u.lun, in)
	if err := u.do(ctx, cmd); err != nil {
		return fmt.Errorf("LUN %d has no Caching mode page: %w", u.lun, err)
	}
	if cmd.Received < 4+3 {
		return fmt.Errorf("LUN %d has a Caching mode page of %d bytes", u.lun, cmd.Received)
	}
	u.page = in[4:cmd.Received]
	u.cache = u.page[2]&0x04 != 0
	capacity := make([]byte, 32)
	if err := u.do(ctx, readCapacity(u.lun, capacity)); err != nil {
		return fmt.Errorf("LUN %d has no capacity: %w", u.lun, err)
	}
	u.thin = capacity[14]&0x80 != 0
	return nil
}

// scale is how many blocks of the model a block of the unit is.
func (u *unit) scale() int { return u.blockSize / u.model.blockSize }

// blocks is how many blocks the unit has.
func (u *unit) blocks() int { return u.count() / u.scale() }

// do runs a command to its end. A unit attention says that it was not executed: it is sent again,
// and so is one for which there was no room.
func (u *unit) do(ctx context.Context, cmd *initiator.Command) error {
	// A command that is given up ends the session: whoever stops the load waits for the last ones.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), answerTime, fmt.Errorf("no answer within %v", answerTime))
	defer cancel()
	for {
		err := u.session.Do(ctx, cmd)
		key, _ := initiator.DecodeSense(cmd.Sense)
		switch {
		case cmd.Err == nil && cmd.Status == initiator.StatusCheckCondition && key == senseUnitAttention:
		case cmd.Err == nil && (cmd.Status == initiator.StatusTaskSetFull || cmd.Status == initiator.StatusBusy):
			time.Sleep(10 * time.Millisecond)
		default:
			return err
		}
	}
}

// A worker changes blocks of one region of a unit, one command at a time.
type worker struct {
	*unit
	random      *rand.Rand
	first, past int // its blocks
}

// errRefused is a command that the target has refused, which it should not.
var errRefused = errors.New("refused")

// work sends commands until the session ends or ctx does. The error is that of a command that
// was refused; the end of the session is none.
func (w *worker) work(ctx context.Context) error {
	for ctx.Err() == nil {
		kind, f := w.pick()
		switch err := f(ctx); {
		case err == nil:
			w.counts.add(kind)
		case w.session.Err() != nil && w.off.Load():
			return nil
		default:
			return fmt.Errorf("LUN %d: %s: %w: %w", w.lun, kind, errRefused, err)
		}
	}
	return nil
}

// pick chooses what is done next.
func (w *worker) pick() (kind string, f func(context.Context) error) {
	switch n := w.random.IntN(100); {
	case n < 38:
		return "WRITE", w.write
	case n < 48:
		return "WRITE with FUA", w.writeThrough
	case n < 52:
		return "WRITE AND VERIFY", w.writeVerify
	case n < 66:
		return "SYNCHRONIZE CACHE", w.synchronize
	case n < 72:
		return "WRITE SAME", w.writeSame
	case n < 77:
		if w.thin {
			return "UNMAP", w.unmap
		}
		return "WRITE", w.write
	case n < 84:
		return "COMPARE AND WRITE", w.compareWrite
	case n < 90:
		return "ORWRITE", w.orWrite
	case n < 98 || w.through:
		return "READ", w.read
	}
	return "MODE SELECT of WCE", w.switchCache
}

// place draws a range of up to limit bytes, more often a short one.
func (w *worker) place(limit int) (lba, blocks int) {
	most := min(limit/w.blockSize, w.past-w.first)
	least := min(4096/w.blockSize, most)
	blocks = least
	for blocks*2 <= most && w.random.IntN(3) > 0 {
		blocks *= 2
	}
	blocks = min(most, blocks+w.random.IntN(blocks))
	return w.first + w.random.IntN(w.past-w.first-blocks+1), blocks
}

// change runs a command that gives blocks new contents. Without a write cache it is durable when
// it is answered, and otherwise if it asks for that.
func (w *worker) change(ctx context.Context, cmd *initiator.Command, contents []byte, lba int, durable bool) error {
	w.mode.RLock()
	defer w.mode.RUnlock()
	durable = durable || !w.cache
	w.begin(contents, lba*w.scale())
	if err := w.do(ctx, cmd); err != nil {
		return err
	}
	w.end(lba*w.scale(), len(contents)/w.model.blockSize, durable)
	return nil
}

// stamped returns contents for blocks.
func (w *worker) stamped(lba, blocks int) []byte {
	p := make([]byte, blocks*w.blockSize)
	w.stamp(p, lba*w.scale())
	return p
}

// either is one of two operation codes: the 10-byte or the 16-byte CDB.
func (w *worker) either(short, long, flags byte, lba, blocks int, out []byte) *initiator.Command {
	if w.random.IntN(2) == 0 {
		return cdb10(w.lun, short, flags, lba, blocks, out)
	}
	return cdb16(w.lun, long, flags, lba, blocks, out)
}

func (w *worker) write(ctx context.Context) error {
	lba, blocks := w.place(maxWrite)
	p := w.stamped(lba, blocks)
	return w.change(ctx, w.either(codeWrite10, codeWrite16, 0, lba, blocks, p), p, lba, false)
}

func (w *worker) writeThrough(ctx context.Context) error {
	lba, blocks := w.place(maxWrite / 4)
	p := w.stamped(lba, blocks)
	return w.change(ctx, w.either(codeWrite10, codeWrite16, initiator.FUA, lba, blocks, p), p, lba, true)
}

// writeVerify is WRITE AND VERIFY, which verifies what is on the medium.
func (w *worker) writeVerify(ctx context.Context) error {
	lba, blocks := w.place(maxWrite / 4)
	p := w.stamped(lba, blocks)
	return w.change(ctx, w.either(codeWriteVerify10, codeWriteVerify16, 0, lba, blocks, p), p, lba, true)
}

// synchronize is SYNCHRONIZE CACHE of everything or of a range; only the range is promised
// then, but gotgtd promises everything (docs/durability.md).
func (w *worker) synchronize(ctx context.Context) error {
	lba, blocks := 0, 0
	if w.random.IntN(2) == 0 {
		lba, blocks = w.place(maxWrite)
	}
	until := w.flushing()
	if err := w.do(ctx, w.either(codeSynchronize10, codeSynchronize16, 0, lba, blocks, nil)); err != nil {
		return err
	}
	w.flushed(until)
	return nil
}

// writeSame writes one block again and again: a stamp, or zeros, which may free space.
func (w *worker) writeSame(ctx context.Context) error {
	lba, blocks := w.place(maxWrite)
	one, flags := w.stamped(lba, 1), byte(0)
	if w.random.IntN(2) == 0 {
		clear(one)
		if w.thin {
			flags = flagUnmap
		}
	}
	p := make([]byte, 0, blocks*w.blockSize)
	for range blocks {
		p = append(p, one...)
	}
	return w.change(ctx, w.either(codeWriteSame10, codeWriteSame16, flags, lba, blocks, one), p, lba, false)
}

func (w *worker) unmap(ctx context.Context) error {
	lba, blocks := w.place(maxWrite)
	cmd := new(initiator.Command).Unmap(initiator.LUN(w.lun), initiator.Range{LBA: uint64(lba), Blocks: uint32(blocks)})
	return w.change(ctx, cmd, make([]byte, blocks*w.blockSize), lba, false)
}

// fua draws whether a command has FUA set.
func (w *worker) fua() (flags byte, durable bool) {
	if w.random.IntN(3) == 0 {
		return initiator.FUA, true
	}
	return 0, false
}

// compareWrite is COMPARE AND WRITE; one in four compares with something else, and must change nothing.
func (w *worker) compareWrite(ctx context.Context) error {
	lba, blocks := w.place(8 * w.blockSize)
	flags, durable := w.fua()
	n := blocks * w.blockSize
	out := make([]byte, 2*n)
	w.stamp(out[n:], lba*w.scale())
	w.copyNow(out[:n], lba*w.scale())
	if w.random.IntN(4) > 0 {
		return w.change(ctx, compareAndWrite(w.lun, flags, lba, blocks, out), out[n:], lba, durable)
	}
	out[w.random.IntN(n)] ^= 1
	cmd := compareAndWrite(w.lun, flags, lba, blocks, out)
	err := w.do(ctx, cmd)
	if key, _ := initiator.DecodeSense(cmd.Sense); cmd.Err == nil && key == senseMiscompare {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("block %d was not as compared, and that was GOOD", lba)
	}
	return err
}

func (w *worker) orWrite(ctx context.Context) error {
	lba, blocks := w.place(64 << 10)
	flags, durable := w.fua()
	p := make([]byte, blocks*w.blockSize)
	w.copyNow(p, lba*w.scale())
	mask := make([]byte, len(p))
	for i := range mask {
		mask[i] = byte(w.random.Uint32() & w.random.Uint32() & w.random.Uint32())
		p[i] |= mask[i]
	}
	return w.change(ctx, cdb16(w.lun, codeOrWrite, flags, lba, blocks, mask), p, lba, durable)
}

// read compares blocks with what was written last.
func (w *worker) read(ctx context.Context) error {
	lba, blocks := w.place(maxWrite / 4)
	want := make([]byte, blocks*w.blockSize)
	w.copyNow(want, lba*w.scale())
	got := make([]byte, len(want))
	if err := w.do(ctx, new(initiator.Command).Read16(initiator.LUN(w.lun), uint64(lba), uint32(blocks), got, 0)); err != nil {
		return err
	}
	for at, n := 0, w.model.blockSize; at < len(got); at += n {
		if g, h := got[at:at+n], want[at:at+n]; sum(g) != sum(h) {
			return fmt.Errorf("block %d holds %s, and %s was written", lba+at/w.blockSize, describe(g), describe(h))
		}
	}
	return nil
}

// switchCache turns the write cache on or off. Turned off, it is flushed.
func (w *worker) switchCache(ctx context.Context) error {
	w.mode.Lock()
	defer w.mode.Unlock()
	until := w.flushing()
	if err := w.do(ctx, selectCache(w.lun, w.page, !w.cache)); err != nil {
		return err
	}
	if w.cache = !w.cache; !w.cache {
		w.flushed(until)
	}
	return nil
}

// readAll compares all blocks with what they may hold: after a power cut, or else after the end of
// a process. It has to be the only one that uses the unit.
func (u *unit) readAll(ctx context.Context, cut bool) (verdict, error) {
	var v verdict
	most := maxWrite / u.blockSize
	for lba := 0; lba < u.blocks(); lba += most {
		blocks := min(most, u.blocks()-lba)
		in := make([]byte, blocks*u.blockSize)
		if err := u.do(ctx, new(initiator.Command).Read16(initiator.LUN(u.lun), uint64(lba), uint32(blocks), in, 0)); err != nil {
			return v, fmt.Errorf("LUN %d can't be read: %w", u.lun, err)
		}
		u.compare(&v, in, lba*u.scale(), cut)
	}
	return v, nil
}
