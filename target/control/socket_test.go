// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDefaultSocket(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	t.Setenv("TMPDIR", "/scratch")
	want := "/run/user/1000/gotgtd/gotgtd.sock"
	if os.Getuid() == 0 {
		want = "/run/gotgtd/gotgtd.sock"
	}
	if got := DefaultSocket(); got != want {
		t.Errorf("the default is %q, want %q", got, want)
	}
	if got := defaultSocket(1000, ""); got != "/scratch/gotgtd-1000/gotgtd.sock" {
		t.Errorf("without XDG_RUNTIME_DIR the default is %q", got)
	}
}

func TestClearMakesFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := Clear(filepath.Join(dir, "gotgtd.sock")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != 0o700|fs.ModeDir {
		t.Errorf("the folder is %v, %v", info, err)
	}
}

func TestClearStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gotgtd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	// This one accepts nobody, so the kernel alone can say who it is.
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%q is in use: %s (PID %d) listens on it; stop that first", path, strings.TrimSpace(string(comm)), os.Getpid())
	if err := Clear(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--control") {
		t.Errorf("a socket that is listened on: %v, want %s", err, want)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Clear(path); err != nil {
		t.Errorf("a socket that nobody listens on: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// TestClearSparesOthers points --control at something that is no socket.
func TestClearSparesOthers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, dir} {
		if err := Clear(path); err == nil || !strings.Contains(err.Error(), "it is something else") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := Clear(filepath.Join(file, "gotgtd.sock")); err == nil {
		t.Error("a socket in a file")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
