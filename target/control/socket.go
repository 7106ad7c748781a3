// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is the path of the control socket when nobody names one:
// under /run for root, under the user's XDG_RUNTIME_DIR or else the folder for
// temporary files for others.
func DefaultSocket() string { return defaultSocket(os.Getuid(), os.Getenv("XDG_RUNTIME_DIR")) }

func defaultSocket(uid int, runtimeDir string) string {
	switch {
	case uid == 0:
		return "/run/gotgtd/gotgtd.sock"
	case runtimeDir != "":
		return filepath.Join(runtimeDir, "gotgtd", "gotgtd.sock")
	}
	return filepath.Join(os.TempDir(), "gotgtd-"+strconv.Itoa(uid), "gotgtd.sock")
}

// holderTimeout bounds each question to who listens on a socket.
const holderTimeout = time.Second

// holder names who listens on a socket that c is connected to. The kernel knows
// who began to listen; after an upgrade that is a process that is gone, and the
// daemon itself says who it is.
func holder(path string, c net.Conn) string {
	pid := peerPID(c)
	ctx, cancel := context.WithTimeout(context.Background(), holderTimeout)
	defer cancel()
	if st, err := NewClient(path).Status(ctx); err == nil && st.Generation > 1 {
		pid = st.PID
	}
	if pid <= 0 {
		return "another process" // in a PID namespace that can't be seen from here
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("PID %d", pid)
	}
	return fmt.Sprintf("%s (PID %d)", strings.TrimSpace(string(name)), pid)
}

// peerPID is the process that called listen(2) on the socket that c is
// connected to, 0 if that is unknown (SO_PEERCRED, unix(7)).
func peerPID(c net.Conn) int {
	raw, err := c.(*net.UnixConn).SyscallConn()
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

// Clear makes way for a socket at path: its folder is made if it is missing,
// and a socket that nobody listens on any more is removed. A socket that
// somebody listens on is an error, and so is anything else that is there, and a
// folder in which another user could replace the socket.
func Clear(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("can't make the folder of the control socket: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("can't use %q for the control socket: %w", dir, err)
	}
	if int(st.Uid) != os.Getuid() && st.Uid != 0 {
		return fmt.Errorf("can't use %q for the control socket: it belongs to another user", dir)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("can't use the control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("can't use %q for the control socket: it is something else", path)
	}
	c, err := net.DialTimeout("unix", path, holderTimeout)
	if err == nil {
		defer c.Close()
		return fmt.Errorf("the control socket %q is in use: %s listens on it; stop that first, have it go on with another binary or configuration by `gotgtd upgrade`, or give this daemon a socket of its own with --control", path, holder(path, c))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("can't tell whether the control socket is in use: %w", err)
	}
	return os.Remove(path)
}
