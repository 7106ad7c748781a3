// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// featureRest is what a successor must know to take data that follows when it has taken
// over.
const featureRest = "data that follows"

// restWait bounds how long the predecessor writes what follows.
const restWait = time.Minute

// restPipe is how many bytes are on their way at a time.
const restPipe = 1 << 20

// rest is what need not move in the pause.
type rest struct {
	known []string                // features that the reader of the snapshot knows
	write func(w io.Writer) error // the writer's: writes what follows
	pipe  *os.File                // the reader's: where it comes from
}

// TakesRest reports whether the successor takes data that follows; see [Snapshot.Follow].
func (s *Snapshot) TakesRest() bool { return s.Known(featureRest) }

// Known reports whether the successor knows a feature.
func (s *Snapshot) Known(feature string) bool { return slices.Contains(s.known, feature) }

// Follow says that write writes what follows the snapshot, when the successor has taken over. What
// it belongs to must be able to wait for it, and is lost if this process dies before.
func (s *Snapshot) Follow(write func(w io.Writer) error) { s.write = write }

// Rest returns where what follows the snapshot can be read once [Taker.Start] has been called,
// up to its end, and which is the caller's from now on; nil if nothing follows.
func (s *Snapshot) Rest() *os.File {
	f := s.pipe
	s.pipe = nil
	return f
}

// drop closes what nobody wants to read.
func (r *rest) drop() {
	if r.pipe != nil {
		r.pipe.Close()
		r.pipe = nil
	}
}

// open makes the pipe for what follows, if anything does: its end for the successor and a
// function that writes all, or gives up, and closes the other end.
func (r *rest) open() (theirs *os.File, finish func(write bool) error, err error) {
	none := func(bool) error { return nil }
	if r.write == nil {
		return nil, none, nil
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, none, err
	}
	if fd, err := Descriptor(ours); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, restPipe) // else it is done in smaller steps
	}
	return theirs, func(write bool) error {
		theirs.Close()
		if !write {
			return ours.Close()
		}
		err := ours.SetWriteDeadline(time.Now().Add(restWait))
		if err == nil {
			err = r.write(ours)
		}
		return errors.Join(err, ours.Close())
	}, nil
}

// Descriptor returns the descriptor of a connection or file and leaves it as it is, which [os.File.Fd]
// does not. It stays valid for as long as nobody closes that, as while a daemon is frozen.
func Descriptor(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(v uintptr) { fd = int(v) })
	return fd, err
}
