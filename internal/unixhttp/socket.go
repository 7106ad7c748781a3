// SPDX-License-Identifier: Apache-2.0

package unixhttp

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/replace"
)

// dialTimeout bounds the attempt to reach who listens on a socket.
const dialTimeout = time.Second

// ErrNoSocket is RemoveDead's answer for a path at which something else is.
var ErrNoSocket = errors.New("exists and is no socket: remove it, or choose another path")

// InUseError is RemoveDead's answer for a socket that somebody listens on.
type InUseError struct {
	Path string
	// PID is the process that began to listen, which may have handed the socket
	// on since. It is 0 for a process in a PID namespace that can't be seen.
	PID int
}

func (e *InUseError) Error() string { return "another process listens on " + e.Path }

// RemoveDead removes the socket at path if nobody listens on it any more. It
// fails if somebody does, and if anything else is there. With nothing there it
// does nothing.
func RemoveDead(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s %w", path, ErrNoSocket)
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err == nil {
		defer c.Close()
		return &InUseError{path, peerPID(c.(*net.UnixConn))}
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("can't tell whether %s is in use: %w", path, err)
	}
	return os.Remove(path)
}

// peerPID is the process that called listen(2) on the socket that c is
// connected to, 0 if that is unknown (SO_PEERCRED, unix(7)).
func peerPID(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// MakeFolder makes the folder of a socket if it is missing. A folder in which
// another user could replace the socket is an error.
func MakeFolder(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("can't make the folder of the socket: %w", err)
	}
	if err := replace.Folder(dir); err != nil {
		return fmt.Errorf("can't have the socket there: %w", err)
	}
	return nil
}

// ListenPrivate calls listen so that the socket that it makes can be used by
// its owner alone, from the first moment on. Since the umask is the whole
// process's, no other file may be made meanwhile.
func ListenPrivate[L net.Listener](listen func() (L, error)) (L, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return listen()
}
