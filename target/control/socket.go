// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// DefaultSocket is the path of the control socket if none is given:
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

// holderTimeout bounds how long the process that listens on a socket may take to answer.
const holderTimeout = time.Second

// holder names the process that listens on a socket. The kernel knows which process called
// listen(2), which is pid; after an upgrade that process has ended, so the daemon is asked
// for its own PID.
func holder(path string, pid int) string {
	ctx, cancel := context.WithTimeout(context.Background(), holderTimeout)
	defer cancel()
	if st, err := NewClient(path).Status(ctx); err == nil && st.Generation > 1 {
		pid = st.PID
	}
	if pid <= 0 {
		return "another process" // in a PID namespace that can't be seen from here
	}
	return proc.Name(pid)
}

// Clear makes way for a socket at path: its folder is made if it is missing,
// and a socket that nobody listens on any more is removed. A socket that
// somebody listens on is an error, and so is anything else that is there, and a
// folder in which another user could replace the socket.
func Clear(path string) error {
	if err := unixhttp.MakeFolder(path); err != nil {
		return err
	}
	err := unixhttp.RemoveDead(path)
	var inUse *unixhttp.InUseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &inUse):
		return fmt.Errorf("the control socket %q is in use: %s listens on it; stop that first, have it go on with another binary or configuration by `gotgtd upgrade`, or give this daemon a socket of its own with --control", path, holder(path, inUse.PID))
	case errors.Is(err, unixhttp.ErrNoSocket):
		return fmt.Errorf("can't use %q for the control socket: it is something else; remove it, or give this daemon another path with --control", path)
	}
	return fmt.Errorf("can't use the control socket: %w", err)
}
