// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// tableflip starts the successor: it executes argv[0] with two pipes and the
// files that it was given, and waits for one byte. Everything that has to be
// known of how it does that is in this file. "Since 1.0.0" means that it was so
// in the first version and is so in tableflipVersion. A test compares the texts
// and numbers with tableflip's source.

// tableflipVersion is the version that this file was written for.
const tableflipVersion = "v1.2.3"

// upgrader is the part of tableflip.Upgrader that a Process uses.
type upgrader interface {
	HasParent() bool
	File(name string) (*os.File, error)
	AddFile(name string, file *os.File) error
	Ready() error
	Upgrade() error
	Stop()
}

// newTableflip makes the upgrader of this process. timeout is the Process's own
// bound of an upgrade. tableflip's bound runs until Ready and ends with a kill
// (since 1.0.0), and so it would kill a successor that has taken over and is
// slow to be ready: it is made to come long after the Process's own.
func newTableflip(timeout time.Duration) (upgrader, error) {
	return tableflip.New(tableflip.Options{UpgradeTimeout: 2*timeout + time.Minute})
}

// tableflipVariable marks a process that tableflip has started. tableflip
// leaves it in the environment (since 1.0.0), so that any tableflip daemon which
// this process starts would look for a parent: Start takes it away.
const tableflipVariable = "TABLEFLIP_HAS_PARENT_7DIU3"

// The pipes by which tableflip's two processes talk have these descriptors in
// the successor. tableflip sets close-on-exec on the files that follow them,
// and not on the pipes themselves (since 1.0.0): every child of the daemon would
// have them, and keep the predecessor's readiness pipe open.
const (
	tableflipReady = 3
	tableflipNames = 4
)

func hideFlipPipes() {
	unix.CloseOnExec(tableflipReady)
	unix.CloseOnExec(tableflipNames)
}

// A slot is the descriptor that tableflip gives to the next process.
//
// tableflip keeps a duplicate of every file given to it, for good and without a
// way to ask for its number (since 1.0.0). So it gets one file once; the
// duplicate is searched for by its inode; and the package decides with dup3(2)
// what that descriptor refers to: the successor's end of the socket pair while
// one is started, /dev/null otherwise. The descriptor's number never changes,
// nothing piles up, and no end of a socket pair stays open in the wrong process.
type slot struct {
	fd   int
	null *os.File
}

// newSlot makes the slot of a first generation.
func newSlot(u upgrader) (*slot, error) {
	fd, err := unix.MemfdCreate(handoffName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("can't make the handoff descriptor: %w", err)
	}
	placeholder := os.NewFile(uintptr(fd), handoffName)
	defer placeholder.Close()
	if err := u.AddFile(handoffName, placeholder); err != nil {
		return nil, fmt.Errorf("can't make the handoff descriptor: %w", err)
	}
	return slotOf(placeholder)
}

// slotOf finds the one other descriptor of this process that refers to the
// same file as f, and empties it.
func slotOf(f *os.File) (*slot, error) {
	own, err := kernel.DupFD(f)
	if err != nil {
		return nil, err
	}
	defer unix.Close(own)
	var want unix.Stat_t
	if err := unix.Fstat(own, &want); err != nil {
		return nil, err
	}
	mine := map[int]bool{own: true}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := raw.Control(func(fd uintptr) { mine[int(fd)] = true }); err != nil {
		return nil, err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		var st unix.Stat_t
		if err != nil || mine[fd] || unix.Fstat(fd, &st) != nil {
			continue
		}
		if st.Dev == want.Dev && st.Ino == want.Ino {
			return emptySlot(fd)
		}
	}
	return nil, errors.New("tableflip's copy of the handoff descriptor is not open")
}

func emptySlot(fd int) (*slot, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	s := &slot{fd, null}
	if err := s.empty(); err != nil {
		_ = null.Close()
		return nil, err
	}
	return s, nil
}

// put makes the slot refer to what fd refers to.
func (s *slot) put(fd int) error { return unix.Dup3(fd, s.fd, unix.O_CLOEXEC) }

// empty makes the slot refer to /dev/null.
func (s *slot) empty() error {
	dup, err := kernel.DupFD(s.null)
	if err != nil {
		return err
	}
	defer unix.Close(dup)
	return s.put(dup)
}

func (s *slot) close() { _ = s.null.Close() }

// flipRetry is the time between two attempts of flip.
const flipRetry = 2 * time.Millisecond

// flip is tableflip's Upgrade. That refuses to work until the generation before
// this one has exited (since 1.0.0), by an error that is nothing but a text. That
// generation is about to exit, so flip waits for it.
func (p *Process) flip(ctx context.Context) error {
	for {
		err := p.upg.Upgrade()
		if err == nil || !strings.Contains(err.Error(), flipParentLives) {
			return explainFlip(err)
		}
		select {
		case <-ctx.Done():
			return explainFlip(err)
		case <-time.After(flipRetry):
		}
	}
}

// closeFlipPipes closes what a failed Upgrade leaves open: tableflip does not
// close its copies of the successor's ends of its two pipes (since 1.0.0), but
// leaves them to their finalizers.
func closeFlipPipes() { runtime.GC() }

// killFlipped kills every successor that tableflip has started. Upgrade tells
// the PID only in the text of some errors, when the process is gone (since
// 1.0.0), so a successor that has not said who it is has to be searched for.
func killFlipped() {
	for _, process := range findFlipped() {
		_ = process.Kill()
		_ = process.Release()
	}
}

// findFlipped returns handles on the children that tableflip has started.
func findFlipped() []*os.Process {
	var found []*os.Process
	for _, pid := range kernel.Children(os.Getpid()) {
		process, err := childProcess(pid)
		if err != nil {
			continue
		}
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil || !bytes.Contains(environ, []byte(tableflipVariable+"=")) {
			_ = process.Release()
			continue
		}
		found = append(found, process)
	}
	return found
}

// The parts of the texts of tableflip's errors by which they are known. The
// texts are those of 1.0.0. There they wrapped their causes; since 1.2.0 they
// wrap nothing, and the texts are all there is.
const (
	flipParentLives = "parent hasn't exited"
	flipFailed      = " exited: " // and how, in the words of os.ProcessState
	flipEnded       = " exited"
	flipTimeout     = "timed out"
	flipNotReady    = "not ready yet"
	flipUpgrading   = "upgrade in progress"
	flipUpgraded    = "already upgraded"
	flipStopped     = "terminating"
)

// errKilled is a successor's death by SIGKILL.
var errKilled = errors.New("the successor was killed by signal 9")

// explainFlip turns an error of tableflip's Upgrade into what an administrator
// can act on.
func explainFlip(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	binary := os.Args[0]
	if _, status, found := strings.Cut(text, flipFailed); found {
		if status == "signal: killed" {
			return errKilled
		}
		if signal, found := strings.CutPrefix(status, "signal: "); found {
			return fmt.Errorf("the successor was killed by a signal (%s) before it was ready", signal)
		}
		return fmt.Errorf("the successor exited with %s before it was ready", status)
	}
	for _, known := range []struct {
		part string
		err  error
	}{
		{flipParentLives, errors.New("the generation before this one has not exited yet")},
		{"exec format error", fmt.Errorf("binary %s is for another architecture, or is no program: %w", binary, unix.ENOEXEC)},
		{"permission denied", fmt.Errorf("binary %s is not executable: %w", binary, unix.EACCES)},
		{"no such file or directory", missing(binary)},
		{"executable file not found", fmt.Errorf("binary %s is missing: %w", binary, unix.ENOENT)},
		{"text file busy", fmt.Errorf("binary %s is being written: %w", binary, unix.ETXTBSY)},
		{flipEnded, errors.New("the successor exited with exit status 0 before it was ready")},
		{flipTimeout, errors.New("the successor was not ready in time")},
		{flipNotReady, errors.New("this generation is not ready itself yet")},
		{flipUpgrading, ErrUpgrading},
		{flipUpgraded, ErrHandedOver},
		{flipStopped, errors.New("the process is ending")},
	} {
		if strings.Contains(text, known.part) {
			return known.err
		}
	}
	return fmt.Errorf("can't start the successor: %w", err)
}

// missing is why execve(2) has found no file: the program may be there, and what loads it not, as
// with a dynamically linked build in a container that has nothing but static programs.
func missing(binary string) error {
	if _, err := exec.LookPath(binary); err == nil {
		return fmt.Errorf("binary %s needs a dynamic loader or an interpreter that is not here (CGO_ENABLED=0 makes a static build): %w", binary, unix.ENOENT)
	}
	return fmt.Errorf("binary %s is missing: %w", binary, unix.ENOENT)
}
