// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("another daemon listens on the control socket %q", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("can't tell whether the control socket is in use: %w", err)
	}
	return os.Remove(path)
}
