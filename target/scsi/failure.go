// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
)

// mediumWork is what a store was asked to do, as logs name it.
type mediumWork string

const (
	reading  mediumWork = "read"
	writing  mediumWork = "write"
	flushing mediumWork = "flush"
	freeing  mediumWork = "discard"
	mapping  mediumWork = "map"
)

// errFlushFailed stands for data that an earlier flush lost.
var errFlushFailed = errors.New("an earlier flush of the backing store failed")

// storageSense maps an error of the backing store to sense data; it is the
// only place that does.
func storageSense(work mediumWork, err error) sense {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ENOSPC, syscall.EDQUOT:
			return sense{key: keyDataProtect, code: ascSpaceAllocationFailed}
		case syscall.EPERM, syscall.EACCES:
			return sense{key: keyDataProtect, code: ascWriteProtected}
		case syscall.EROFS, syscall.ESHUTDOWN, syscall.ENODEV, syscall.ENXIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ENOLINK:
			// The blocks are out of reach from here: the file system was shut down or
			// went read-only after an error, the device or the server behind it is gone.
			// That is a fault of this path, and multipath takes another one for it, as it
			// does not for MEDIUM ERROR, HARDWARE ERROR and DATA PROTECT.
			return sense{key: keyNotReady, code: ascPortUnavailable}
		case syscall.EBADF:
			return sense{key: keyHardwareError, code: ascInternalTargetFailure}
		}
	}
	switch work {
	case reading, mapping:
		return sense{key: keyMediumError, code: ascUnrecoveredReadError}
	}
	return sense{key: keyMediumError, code: ascWriteError}
}

// endedBy reports whether err says that the end of ctx has ended a call of a store.
func endedBy(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

// failStorage ends the command with the sense data of a backing store's error
// at a block, and logs it. One whose context has ended the call has not failed, and is not
// ended: it can be executed again.
func (c *Command) failStorage(work mediumWork, lba uint64, err error) {
	if endedBy(c.exec.ctx, err) {
		c.exec.ended = true
		if c.In != nil { // as it was before
			c.In, c.Buffer = nil, c.In
		}
		return
	}
	lu := c.exec.at.lu
	lu.stats.errors.Add(1)
	c.exec.nexus.stats.errors.Add(1)
	lu.logFailure(c.exec.at, c.exec.nexus, work, lba, err)
	c.fail(storageSense(work, err).withInfo(lba))
}

// logFailure writes one log line about a failure of the backing store, unless
// there were many just now.
func (lu *LogicalUnit) logFailure(at *attachment, nx *Nexus, work mediumWork, lba uint64, err error) {
	lu.errs.Log(lu.log, slog.LevelError, "backing store can't "+string(work),
		"target", at.dev.opts.Name, "lun", at.number, "lba", lba, "initiator", nx.initiator(), "error", err)
}
