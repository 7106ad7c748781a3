// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"
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
		case syscall.EROFS, syscall.EPERM, syscall.EACCES:
			return sense{key: keyDataProtect, code: ascWriteProtected}
		case syscall.ENODEV, syscall.ENXIO, syscall.ESTALE, syscall.EBADF:
			return sense{key: keyHardwareError, code: ascInternalTargetFailure}
		}
	}
	switch work {
	case reading, mapping:
		return sense{key: keyMediumError, code: ascUnrecoveredReadError}
	}
	return sense{key: keyMediumError, code: ascWriteError}
}

// failStorage ends the command with the sense data of a backing store's error
// at a block, and logs it.
func (c *Command) failStorage(work mediumWork, lba uint64, err error) {
	lu := c.exec.at.lu
	lu.stats.errors.Add(1)
	c.exec.nexus.stats.errors.Add(1)
	lu.logFailure(c.exec.at, c.exec.nexus, work, lba, err)
	c.fail(storageSense(work, err).withInfo(lba))
}

// logFailure writes one log line about a failure of the backing store, unless
// there were many just now.
func (lu *LogicalUnit) logFailure(at *attachment, nx *Nexus, work mediumWork, lba uint64, err error) {
	suppressed, ok := lu.errs.admit(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("target", at.dev.opts.Name), slog.Int("lun", int(at.number)),
		slog.Uint64("lba", lba), slog.String("initiator", nx.String()), slog.Any("error", err),
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", suppressed))
	}
	lu.log.LogAttrs(context.Background(), slog.LevelError, "backing store can't "+string(work), attrs...)
}

// errorLog limits the log lines of a logical unit.
type errorLog struct {
	mu         sync.Mutex
	window     time.Time // protected by mu: when the present window began
	lines      int       // protected by mu: lines in it
	suppressed uint64    // protected by mu: lines left out since the last one written
}

// At most logBurst lines are written in each logWindow.
const (
	logBurst  = 10
	logWindow = 10 * time.Second
)

// admit reports whether a line may be written now, and how many were left out
// before it.
func (l *errorLog) admit(now time.Time) (suppressed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.window) >= logWindow {
		l.window, l.lines = now, 0
	}
	if l.lines == logBurst {
		l.suppressed++
		return 0, false
	}
	l.lines++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
