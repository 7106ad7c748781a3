// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// lostWrites are the commands of a logical unit that change blocks and keep these to
// themselves until they have ended: a later change must not be reported done and be
// overwritten by theirs. Some still run and belong to an I_T nexus that is lost. Nobody waits for
// their answer, and who has lost the nexus may have given its disk to another one. Others were
// ended by their context in the midst of it, and are executed again.
type lostWrites struct {
	count atomic.Int32 // len(list), to look at without the lock

	mu    sync.Mutex // protects what follows
	list  []*Command
	ended *sync.Cond // signalled when list changes; nil until somebody waits
}

// KeepRange has a command that is executing keep other changes away from the blocks that it
// changes until [Command.ReleaseRange]: its nexus is lost. The transport calls both under one
// lock, and the second one when the command has ended.
func (c *Command) KeepRange() {
	if !c.Changes() {
		return
	}
	c.exec.at.lu.lost.change(func(list []*Command) []*Command {
		c.exec.lost = true
		if c.exec.kept {
			return list
		}
		return append(list, c)
	})
	c.exec.kept = true
}

// KeepRangeForRepeat has a command whose execution was ended, see [Command.Ended], keep other
// changes away from the blocks that it changes until it was executed again and
// [Command.ReleaseRange] is called. The transport sees to it that it has a worker before those that
// have to wait for it.
func (c *Command) KeepRangeForRepeat() {
	if c.exec.kept || !c.Changes() {
		return
	}
	c.exec.at.lu.lost.change(func(list []*Command) []*Command { return append(list, c) })
	c.exec.kept = true
}

// Changes reports whether a prepared command changes blocks.
func (c *Command) Changes() bool { return c.exec.op != nil && c.exec.op.flags&opWrites != 0 }

// Kept reports whether the command keeps the blocks that it changes.
func (c *Command) Kept() bool { return c.exec.kept }

// ReleaseRange ends what KeepRange or KeepRangeForRepeat has begun; without one of
// them it does nothing.
func (c *Command) ReleaseRange() {
	if !c.exec.kept {
		return
	}
	c.exec.kept = false
	c.exec.at.lu.lost.change(func(list []*Command) []*Command {
		return slices.DeleteFunc(list, func(o *Command) bool { return o == c })
	})
}

func (l *lostWrites) change(f func([]*Command) []*Command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = f(l.list)
	l.count.Store(int32(len(l.list)))
	if l.ended != nil {
		l.ended.Broadcast()
	}
}

// holdBack reports whether a command that changes blocks has to wait.
func (l *lostWrites) holdBack(c *Command) bool {
	if l.count.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holdBackLocked(c)
}

// holdBackLocked is holdBack; of two that are to be executed again none waits for the other,
// for neither has been answered.
func (l *lostWrites) holdBackLocked(c *Command) bool {
	again := slices.Contains(l.list, c)
	return slices.ContainsFunc(l.list, func(o *Command) bool { return o != c && (o.exec.lost || !again) && c.overlaps(o) })
}

// wait waits until no lost command changes the blocks that c changes. It reports false if
// the nexus of c is lost too meanwhile, or its context ends: then c must not begin. Two that
// wait can't wait for each other.
func (l *lostWrites) wait(c *Command) bool {
	if l.count.Load() == 0 {
		return true
	}
	defer context.AfterFunc(c.exec.ctx, func() { l.change(slices.Clip) })() // wakes it
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = sync.NewCond(&l.mu)
	}
	for {
		switch {
		case c.exec.lost, c.exec.ctx.Err() != nil:
			return false
		case !l.holdBackLocked(c):
			return true
		}
		l.ended.Wait()
	}
}

// overlaps reports whether two commands can change the same blocks. One whose blocks
// are in its parameter list, UNMAP, may change any.
func (c *Command) overlaps(o *Command) bool {
	if !c.exec.direct || !o.exec.direct {
		return true
	}
	return c.exec.lba < o.exec.lba+uint64(o.exec.blocks) && o.exec.lba < c.exec.lba+uint64(c.exec.blocks)
}
