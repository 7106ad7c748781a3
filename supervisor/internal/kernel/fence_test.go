// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is the tests or, by its argument, a process that writes until it is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "write" {
		fmt.Fprintln(os.Stderr, writeForever(os.Args[2], os.Args[3] == "leaderless"))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func init() { runtime.LockOSThread() } // TestMain runs on the process's first thread

// writeForever writes 64 MiB to a file again and again, each in one system call of a thread
// that is not the first one. leaderless ends the first one.
func writeForever(path string, leaderless bool) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte{1}, 64<<20)
	failed := make(chan error)
	go func() {
		for {
			if _, err := f.WriteAt(data, 0); err != nil {
				failed <- err
				return
			}
		}
	}()
	if leaderless {
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	}
	return <-failed
}

// startWriter returns a process in a large write, and the file.
func startWriter(t *testing.T, kind string) (pid, pidfd int, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "blocks")
	cmd := exec.Command("/proc/self/exe", "write", path, kind)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(pidfd) })
	await(t, "the file to grow", func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Size() > 0
	})
	return pid, pidfd, path
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// threads returns how many threads of a process have not passed their end.
func threads(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	alive := 0
	for _, task := range tasks {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if state := stat[bytes.LastIndexByte(stat, ')')+2]; state != 'Z' && state != 'X' {
			alive++
		}
	}
	return alive
}

// A process that is killed in a large write is gone when no thread of it is left, and
// writes nothing afterwards.
func TestGoneIsNeverEarly(t *testing.T) {
	for range 8 {
		pid, pidfd, path := startWriter(t, "whole")
		if Gone(pidfd, 0) {
			t.Fatal("gone while it runs")
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if !Gone(pidfd, time.Minute) {
			t.Fatal("killed, and not gone")
		}
		if n := threads(t, pid); n != 0 {
			t.Fatalf("gone with %d threads", n)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond) // a writer would have changed the file by then
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !before.ModTime().Equal(after.ModTime()) || before.Size() != after.Size() {
			t.Fatalf("the file was written after its writer was gone: %v, %v", before, after)
		}
	}
}

// A process whose first thread has ended is a zombie for all who ask /proc, and writes on.
func TestZombieIsNotGone(t *testing.T) {
	pid, pidfd, _ := startWriter(t, "leaderless")
	await(t, "the end of the first thread", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && stat[bytes.LastIndexByte(stat, ')')+2] == 'Z'
	})
	if threads(t, pid) == 0 {
		t.Fatal("no thread is left: the test shows nothing")
	}
	if Gone(pidfd, 0) || Gone(pidfd, 20*time.Millisecond) {
		t.Error("gone while a thread of it writes")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !Gone(pidfd, -1) {
		t.Error("killed, and not gone")
	}
}
