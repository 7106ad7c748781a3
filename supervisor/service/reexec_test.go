// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// replaceBinary puts another program where the supervisor's is, as a package
// manager does.
func (s *supervised) replaceBinary(text string) {
	s.t.Helper()
	fresh := s.binary + ".new"
	if text == "" {
		self, err := os.Executable()
		if err != nil {
			s.t.Fatal(err)
		}
		copyFile(s.t, self, fresh)
	} else {
		writeProgram(s.t, fresh, []byte(text))
	}
	if err := os.Rename(fresh, s.binary); err != nil {
		s.t.Fatal(err)
	}
}

func TestReexecUnderLoad(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("store 2")
	s.run()
	before := s.untilServing()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, _, err := ask(filepath.Join(s.dir, "socket")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 10 {
		s.replaceBinary("")
		result, err := s.Reexec(s.context())
		if err != nil {
			t.Fatalf("reexec: %v\n%s", err, s.log)
		}
		st := result.Status
		if st.Supervisor.PID != s.pid || st.Supervisor.Reexecs != i+1 || st.Main.PID != before.Main.PID ||
			!st.Supervisor.Started.Equal(before.Supervisor.Started) || len(st.Stored) != 2 || len(st.Sockets) != 1 {
			t.Fatalf("after %d: %+v", i+1, st)
		}
	}
	close(stop)
	clients.Wait()
	s.fault("")
	if st := s.reload(); st.Main.PID == before.Main.PID {
		t.Error("no reload after the reexec")
	}
	after := s.until("alone", func(st Status) bool { return len(st.Retiring) == 0 })
	if err := syscall.Kill(after.Main.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("restarted", func(now Status) bool { return now.State == Serving && now.Main.PID != after.Main.PID })
}

func TestReexecIntoBrokenBinaries(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no program", "\x7fELF\x02\x01\x01", "exec format error"},
		{"exits", "#!/bin/sh\nexit 7\n", "exited with status 7"},
		{"crashes", "#!/bin/sh\nkill -SEGV $$\n", "was killed by signal 11"},
		{"hangs", "#!/bin/sh\nexec sleep 100\n", "gave no answer within 5s"},
		{"refuses", "#!/bin/sh\nprintf 'it has a bad day' >&4\n", "it has a bad day"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSupervised(t, nil)
			s.run()
			before := s.untilServing()
			s.replaceBinary(tc.text)
			if _, err := s.Reexec(s.context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("reexec: %v, want %q in it", err, tc.want)
			}
			if _, pid := s.ask(); pid != before.Main.PID {
				t.Errorf("process %d answers, not %d", pid, before.Main.PID)
			}
			// Neither reloads nor restarts need the file at the path.
			if st := s.reload(); st.State != Serving || st.Supervisor.Reexecs != 0 {
				t.Errorf("after the reload: %+v", st)
			}
			if _, err := s.Restart(s.context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStateIsChecked(t *testing.T) {
	good := savedState{Magic: stateMagic, Version: stateVersion, State: Stopped}
	for name, spoil := range map[string]func(*savedState){
		"magic":   func(s *savedState) { s.Magic = "x" },
		"version": func(s *savedState) { s.Version++ },
		"state":   func(s *savedState) { s.State = Reloading },
		"main":    func(s *savedState) { s.State = Serving },
		"sockets": func(s *savedState) { s.Sockets = make([]savedSocket, maxSockets+1) },
	} {
		st := good
		spoil(&st)
		f, err := st.write()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readState(f); err == nil {
			t.Errorf("a state with a bad %s is taken", name)
		}
		f.Close()
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

func TestRestartDelays(t *testing.T) {
	const base = 50 * time.Millisecond
	want := []time.Duration{0, base, 2 * base, 4 * base, 8 * base, 16 * base, 32 * base, 64 * base, maxRestartDelay, maxRestartDelay}
	for deaths, w := range want {
		if got := restartDelay(deaths, base); got != w {
			t.Errorf("after %d deaths: %v, want %v", deaths, got, w)
		}
	}
	if got := restartDelay(1<<30, base); got != maxRestartDelay {
		t.Errorf("after very many deaths: %v", got)
	}
}
