// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Verifier writes and reads random parts of a region and checks that every
// block holds what was written to it last. Commands under way never overlap.
// The zero fields have defaults; Session, Blocks and BlockSize are needed.
//
// It remembers the region's contents from one Run to the next, also across
// sessions: after the loss of a session, a block whose write had no answer may
// hold what it held before or what was to be written, and no third thing.
type Verifier struct {
	Session   *Session
	LUN       uint64
	First     uint64 // LBA at which the region begins
	Blocks    uint64 // length of the region; each block costs 17 bytes of memory
	BlockSize int    // bytes, a multiple of 8, at least 512

	MinDepth, MaxDepth int // commands under way, drawn anew now and then; zero: 1 and 32
	MinBytes, MaxBytes int // length of a command; zero: one block and 1 MiB
	ReadPercent        int // of commands; zero: 50; below zero: writes only
	FUAPercent         int // of writes
	FlushEvery         int // commands between flushes; zero: never
	Seed               uint64
	// ResponseLimit is how long no command at all may end before the session
	// is given up; zero: 30 s.
	ResponseLimit time.Duration

	MaxCommands int64         // bound of a Run; zero: none
	MaxDuration time.Duration // bound of a Run; zero: none, but one of the two is needed

	blocks  []blockState
	number  uint64 // of the last write
	random  *rand.Rand
	ended   chan *Command
	idle    []*ioSlot
	flying  int
	depth   int
	limit   *time.Timer // of waiting
	started int64
	result  VerifierResult
}

// VerifierResult counts what a Run did.
type VerifierResult struct {
	Reads, Writes, Flushes int64
	BytesRead              int64
	BytesWritten           int64
	BlocksChecked          int64 // that had been written before
}

// blockState is what is known of a block: the write it holds, 0 for unknown
// contents; and one that it may hold instead.
type blockState struct {
	number, maybe uint64
	busy          bool
}

// An ioSlot is a command with its buffer, used again and again.
type ioSlot struct {
	cmd   Command
	buf   []byte
	at    uint64 // index of the first block
	count uint64
	write uint64 // number of the write; 0 for a read
	flush bool
}

// defaultResponseLimit leaves room for a target that is being replaced.
const defaultResponseLimit = 30 * time.Second

// How often the number of commands under way is drawn anew.
const depthPeriod = 64

// A busy place is looked away from this often before the verifier waits for
// a command to end.
const placeAttempts = 8

// Run works until a bound is reached, ctx ends (which is no error), or something
// is wrong. It returns when no command is under way any more.
func (v *Verifier) Run(ctx context.Context) (VerifierResult, error) {
	if err := v.prepare(); err != nil {
		return VerifierResult{}, err
	}
	if v.MaxDuration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.MaxDuration)
		defer cancel()
	}
	var failure error
	for {
		for failure == nil && v.more(ctx) && v.flying < v.depth {
			started, err := v.start()
			failure = err
			if !started {
				break
			}
		}
		if v.flying == 0 {
			return v.result, failure
		}
		if err := v.finish(v.wait()); failure == nil {
			failure = err
		}
	}
}

// wait returns the next command that has ended. Giving up the session makes
// all of them end.
func (v *Verifier) wait() *ioSlot {
	v.limit.Reset(v.ResponseLimit)
	select {
	case cmd := <-v.ended:
		return cmd.Data.(*ioSlot)
	case <-v.limit.C:
		v.Session.fail(fmt.Errorf("initiator: none of %d commands ended within %v", v.flying, v.ResponseLimit))
		return (<-v.ended).Data.(*ioSlot)
	}
}

// more reports whether another command may start.
func (v *Verifier) more(ctx context.Context) bool {
	return ctx.Err() == nil && (v.MaxCommands == 0 || v.started < v.MaxCommands)
}

// prepare fills in defaults and checks the fields.
func (v *Verifier) prepare() error {
	setDefault(&v.MinDepth, 1)
	setDefault(&v.MaxDepth, max(32, v.MinDepth))
	setDefault(&v.MinBytes, v.BlockSize)
	setDefault(&v.MaxBytes, 1<<20)
	setDefault(&v.ReadPercent, 50)
	switch {
	case v.Session == nil || v.Blocks == 0:
		return errors.New("initiator: a verifier needs a session and a region")
	case v.BlockSize < 512 || v.BlockSize%8 != 0:
		return fmt.Errorf("initiator: can't stamp blocks of %d bytes", v.BlockSize)
	case v.MinDepth < 1 || v.MaxDepth < v.MinDepth || v.MaxDepth > MaxTasks/2:
		return fmt.Errorf("initiator: depth from %d to %d is not within 1 to %d", v.MinDepth, v.MaxDepth, MaxTasks/2)
	case v.MinBytes < v.BlockSize || v.MaxBytes < v.MinBytes:
		return fmt.Errorf("initiator: commands of %d to %d bytes with blocks of %d", v.MinBytes, v.MaxBytes, v.BlockSize)
	case v.MaxCommands <= 0 && v.MaxDuration <= 0:
		return errors.New("initiator: a verifier needs a bound")
	}
	if v.blocks == nil {
		v.blocks = make([]blockState, v.Blocks)
		v.random = rand.New(rand.NewPCG(v.Seed, v.First))
	}
	v.ended = make(chan *Command, v.MaxDepth)
	setDefault(&v.ResponseLimit, defaultResponseLimit)
	v.limit = time.NewTimer(v.ResponseLimit)
	v.started, v.depth, v.result = 0, v.MinDepth, VerifierResult{}
	return nil
}

// start submits a random command. It reports false when there is no free place
// for one, or on an error.
func (v *Verifier) start() (bool, error) {
	if v.started%depthPeriod == 0 {
		v.depth = v.MinDepth + v.random.IntN(v.MaxDepth-v.MinDepth+1)
	}
	s := v.slot()
	flush := v.FlushEvery > 0 && v.started%int64(v.FlushEvery) == int64(v.FlushEvery)-1
	switch {
	case flush:
		s.flush, s.count = true, 0
		s.cmd.Flush(v.LUN)
	case !v.place(s):
		v.idle = append(v.idle, s)
		return false, nil
	case v.random.IntN(100) < v.ReadPercent:
		s.cmd.Read16(v.LUN, v.First+s.at, uint32(s.count), s.bytes(v), 0)
	default:
		v.stampAll(s)
		var flags byte
		if v.random.IntN(100) < v.FUAPercent {
			flags = FUA
		}
		s.cmd.Write16(v.LUN, v.First+s.at, uint32(s.count), s.bytes(v), flags)
	}
	v.started++
	if err := v.Session.Submit(&s.cmd); err != nil {
		v.release(s)
		return false, err
	}
	v.flying++
	return true, nil
}

// slot returns a free slot.
func (v *Verifier) slot() *ioSlot {
	var s *ioSlot
	if n := len(v.idle); n > 0 {
		s = v.idle[n-1]
		v.idle = v.idle[:n-1]
	} else {
		s = &ioSlot{}
		s.cmd.Done = func(cmd *Command) { v.ended <- cmd }
		s.cmd.Data = s
	}
	s.cmd.Reset()
	s.write, s.flush = 0, false
	return s
}

// bytes returns the slot's buffer for its command, growing it when it is
// too small.
func (s *ioSlot) bytes(v *Verifier) []byte {
	n := int(s.count) * v.BlockSize
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	return s.buf[:n]
}

// place finds blocks for a command. Its length is even over the powers of two,
// so that short commands are as frequent as long ones, and then anything
// below.
func (v *Verifier) place(s *ioSlot) bool {
	least, most := uint64(v.MinBytes/v.BlockSize), min(uint64(v.MaxBytes/v.BlockSize), v.Blocks)
	least = min(least, most)
	for range placeAttempts {
		limit := least
		for limit < most && v.random.IntN(6) > 0 {
			limit = min(limit*2, most)
		}
		s.count = least + v.random.Uint64N(limit-least+1)
		s.at = v.random.Uint64N(v.Blocks - s.count + 1)
		if v.claim(s) {
			return true
		}
	}
	return false
}

// claim marks the slot's blocks as busy, all or none.
func (v *Verifier) claim(s *ioSlot) bool {
	blocks := v.blocks[s.at : s.at+s.count]
	for i := range blocks {
		if blocks[i].busy {
			return false
		}
	}
	for i := range blocks {
		blocks[i].busy = true
	}
	return true
}

func (v *Verifier) release(s *ioSlot) {
	for i := range s.count {
		v.blocks[s.at+i].busy = false
	}
	v.idle = append(v.idle, s)
}

func (v *Verifier) stampAll(s *ioSlot) {
	v.number++
	s.write = v.number
	buf := s.bytes(v)
	for i := range s.count {
		stamp{v.Seed, v.First + s.at + i, s.write}.fill(buf[int(i)*v.BlockSize:][:v.BlockSize])
	}
}

// finish judges a command that has ended.
func (v *Verifier) finish(s *ioSlot) error {
	v.flying--
	defer v.release(s)
	if err := s.cmd.Failed(); err != nil {
		v.doubt(s)
		return fmt.Errorf("initiator: %s: %w", s.what(v), err)
	}
	n := int64(s.count) * int64(v.BlockSize)
	switch {
	case s.flush:
		v.result.Flushes++
	case s.write > 0:
		for i := range s.count {
			v.blocks[s.at+i] = blockState{number: s.write, busy: true}
		}
		v.result.Writes++
		v.result.BytesWritten += n
	default:
		v.result.Reads++
		v.result.BytesRead += n
		return v.checkAll(s)
	}
	return nil
}

// doubt notes that a write may have happened or not. Of a block that was in
// doubt already nothing is known any more.
func (v *Verifier) doubt(s *ioSlot) {
	if s.write == 0 {
		return
	}
	for i := range s.count {
		b := &v.blocks[s.at+i]
		if b.maybe > 0 {
			b.number = 0
		}
		b.maybe = s.write
	}
}

func (s *ioSlot) what(v *Verifier) string {
	switch {
	case s.flush:
		return "flush"
	case s.write > 0:
		return fmt.Sprintf("write %d of %d blocks at LBA %d", s.write, s.count, v.First+s.at)
	}
	return fmt.Sprintf("read of %d blocks at LBA %d", s.count, v.First+s.at)
}

// checkAll checks every block of a read. What a block of two possible contents
// turns out to hold, it has to hold from then on.
func (v *Verifier) checkAll(s *ioSlot) error {
	buf := s.bytes(v)
	for i := range s.count {
		b := &v.blocks[s.at+i]
		if b.number == 0 {
			continue // never written, or written by a command that may have failed
		}
		block := buf[int(i)*v.BlockSize:][:v.BlockSize]
		if b.maybe > 0 {
			if readStamp(block).number == b.maybe {
				b.number = b.maybe
			}
			b.maybe = 0
		}
		if err := (stamp{v.Seed, v.First + s.at + i, b.number}).check(block); err != nil {
			return fmt.Errorf("initiator: LBA %d, in a %s: %w", v.First+s.at+i, s.what(v), err)
		}
		v.result.BlocksChecked++
	}
	return nil
}

// CheckAll reads the whole region once, one command after the other, and checks it.
func (v *Verifier) CheckAll(ctx context.Context) (VerifierResult, error) {
	if err := v.prepare(); err != nil {
		return VerifierResult{}, err
	}
	most := min(uint64(v.MaxBytes/v.BlockSize), v.Blocks)
	for at := uint64(0); at < v.Blocks; at += most {
		s := v.slot()
		s.at, s.count = at, min(most, v.Blocks-at)
		v.claim(s)
		if err := ctx.Err(); err != nil {
			v.release(s)
			return v.result, err
		}
		if err := v.Session.Submit(s.cmd.Read16(v.LUN, v.First+at, uint32(s.count), s.bytes(v), 0)); err != nil {
			v.release(s)
			return v.result, err
		}
		v.flying++
		if err := v.finish(v.wait()); err != nil {
			return v.result, err
		}
	}
	return v.result, nil
}
