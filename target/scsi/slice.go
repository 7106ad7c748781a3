// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"time"
)

// Some commands make the store work for long with little effort of the initiator: UNMAP,
// WRITE SAME, VERIFY. They are done in pieces, and pieces make up slices, between which a
// transport can let others come first, abort the command or hand it to another process. How
// far it has come is the number of bytes that are done; nothing else of it is kept. Commands
// that must be one step to all others (COMPARE AND WRITE, ORWRITE) are one slice.

// sliceTime is when a slice ends: with the piece that it is over in.
const sliceTime = 2 * time.Millisecond

// Bytes of a piece.
const (
	scratchBytes = 256 << 10 // that is read or written, a multiple of every block size
	durableBytes = 1 << 20   // that is written durably, since each is waited for
	freedBytes   = 4 << 20   // that is freed or zeroed; more where the store frees no less
)

// Long reports whether a prepared command is one of those that can keep the store at work
// for long. One of them at a time on a logical unit is enough: more have to wait for each
// other in the store or at the lock of the medium, and everybody else behind them.
func (c *Command) Long() bool { return c.exec.op != nil && c.exec.op.flags&opLong != 0 }

// Repeatable reports whether a prepared command can be executed again after its context has
// ended the execution in the midst of it.
func (c *Command) Repeatable() bool { return c.exec.op != nil && c.exec.op.flags&opOnce == 0 }

// Ended reports whether the end of its context has ended a call of the store in the last
// execution. Nothing is known of how far that call has come.
func (c *Command) Ended() bool { return c.exec.ended }

// Progress returns how many bytes of a command are done that is executed in slices.
func (c *Command) Progress() uint64 { return c.exec.progress }

// Resume tells a command restored from another process how much of it was done there. It
// follows [Nexus.Reprepare].
func (c *Command) Resume(progress uint64) { c.exec.progress = progress }

// ExecuteSlice is [Nexus.Execute] for about 2 ms, or until ctx ends, if the store heeds that. It reports
// whether the command has ended; one that has not goes on with the next call. Between two
// calls a logical unit that goes away, or is reserved by another nexus, ends it.
func (n *Nexus) ExecuteSlice(ctx context.Context, c *Command) (done bool) {
	if n.over(c) {
		return true
	}
	if c.Long() {
		c.exec.until = time.Now().Add(sliceTime)
	}
	n.execute(ctx, c)
	n.ended(c)
	return c.done
}

// freedPiece is the length of a piece that is freed.
func (lu *LogicalUnit) freedPiece() uint64 {
	return max(freedBytes, uint64(lu.store.Info().Granularity))
}

// yields reports whether the slice is over. Who asks has done a piece.
func (c *Command) yields() bool {
	return !c.exec.until.IsZero() && !time.Now().Before(c.exec.until)
}

// inPieces does work on n bytes that begin at the offset off of the store, from where the
// command has come to. It reports whether all is done; if not, the slice is over or the command
// has failed.
func (c *Command) inPieces(off, n, piece uint64, do func(off, n uint64) bool) bool {
	for c.exec.progress < n {
		at := off + c.exec.progress
		// Pieces end at multiples of their length, lest they divide what is freed as a whole.
		k := min(piece-at%piece, n-c.exec.progress)
		if !do(at, k) {
			return false
		}
		if c.exec.progress += k; c.exec.progress < n && c.yields() {
			return false
		}
	}
	return true
}
