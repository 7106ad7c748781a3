// SPDX-License-Identifier: Apache-2.0

package scripts

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// apt is an apt with folders of its own, in which package coreutils is installed, and
// a copy of deps.sh whose set `run` wants a file, marker, that is said to be in it.
type apt struct {
	dir    string
	script string
	marker string
}

func newApt(t *testing.T) *apt {
	t.Helper()
	peer.NeedRoot(t)
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("deps.sh installs on Debian only: there is no apt-get")
	}
	dir := t.TempDir()
	a := &apt{dir: dir, script: filepath.Join(dir, "deps.sh"), marker: filepath.Join(dir, "marker")}
	for _, folder := range []string{"dpkg/info", "lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("deps.sh")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.Replace(string(text), "\ncase ", "\nrun="+a.marker+":coreutils\ncase ", 1)
	for name, text := range map[string]string{
		"deps.sh": script,
		"dpkg/status": "Package: coreutils\nStatus: install ok installed\nVersion: 1\n" +
			"Architecture: all\nMaintainer: nobody\nDescription: what is asked for\n",
		"apt.conf": fmt.Sprintf("Dir::State \"%[1]s\";\nDir::State::status \"%[1]s/dpkg/status\";\nDir::State::lists \"%[1]s/lists\";\n"+
			"Dir::Cache \"%[1]s/cache\";\nDir::Etc \"%[1]s/etc\";\n", dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// run starts the script; what it prints goes to out.
func (a *apt) run(t *testing.T, out io.Writer) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), a.script, "run")
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestDepsWaitsForApt holds each of the locks that an upgrade in the background has, and
// gives it back when the script says that it waits.
func TestDepsWaitsForApt(t *testing.T) {
	for _, name := range []string{"lists/lock", "dpkg/lock-frontend"} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a := newApt(t)
			lock, err := os.OpenFile(filepath.Join(a.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
				t.Fatal(err)
			}
			var out waited
			out.on("Waiting for apt", func() {
				// What the script installs is there once apt has run.
				if err := os.WriteFile(a.marker, nil, 0o600); err != nil {
					t.Error(err)
				}
				lock.Close()
			})
			if err := a.run(t, &out).Wait(); err != nil {
				t.Errorf("deps.sh: %v\n%s", err, out.text)
			}
			if out.then != nil || !strings.Contains(out.text, name) {
				t.Errorf("the script does not say that it waits for %s:\n%s", name, out.text)
			}
		})
	}
}

// TestDepsFails: what is not a matter of locks is not waited for, and shown.
func TestDepsFails(t *testing.T) {
	a := newApt(t)
	if err := os.Remove(filepath.Join(a.dir, "dpkg", "status")); err != nil {
		t.Fatal(err)
	}
	var out waited
	if err := a.run(t, &out).Wait(); err == nil || !strings.Contains(out.text, "Could not install coreutils") {
		t.Errorf("deps.sh: %v\n%s", err, out.text)
	}
}

// waited keeps what is written to it, and calls a function when a text is in it.
type waited struct {
	text, until string
	then        func()
}

func (w *waited) on(text string, then func()) { w.until, w.then = text, then }

func (w *waited) Write(p []byte) (int, error) {
	w.text += string(p)
	if w.then != nil && strings.Contains(w.text, w.until) {
		w.then()
		w.then = nil
	}
	return len(p), nil
}
