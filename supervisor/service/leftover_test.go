// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Without systemd nobody ends the service of a supervisor that was killed: it
// goes on serving, and the next supervisor says that it is there.
func TestServiceOutlivesItsSupervisor(t *testing.T) {
	s := newSupervised(t, nil)
	args := s.args()
	first := exec.Command(args[0], args[1:]...)
	first.Stdout, first.Stderr = s.log, s.log
	// The service holds the log open; Wait is not to wait for it.
	first.WaitDelay = 1
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	orphan := s.untilServing().Main.PID
	fd, err := unix.PidfdOpen(orphan, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if _, pid := s.ask(); pid != orphan {
		t.Errorf("process %d answers, not %d", pid, orphan)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	want := fmt.Sprintf("process %d of the service still runs, left by a supervisor that was killed: end it first", orphan)
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("the next supervisor ends with %v: %s; want %q in it", err, out, want)
	}
	if _, pid := s.ask(); pid != orphan {
		t.Errorf("process %d answers, not %d", pid, orphan)
	}
	if err := unix.PidfdSendSignal(fd, syscall.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	if !endsBy(orphan, time.Now().Add(testTimeout)) {
		t.Fatal("the orphan does not end")
	}
	s.run()
	if st := s.untilServing(); st.Main.PID == orphan {
		t.Error("the orphan serves on")
	}
}

// A supervisor that runs is no left-over, and is named as what it is.
func TestSecondSupervisorIsRefused(t *testing.T) {
	s := newSupervised(t, nil)
	s.run()
	before := s.untilServing()
	args := s.args()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another process listens on "+s.Control) {
		t.Errorf("a second supervisor ends with %v: %s", err, out)
	}
	if _, pid := s.ask(); pid != before.Main.PID {
		t.Errorf("process %d answers, not %d", pid, before.Main.PID)
	}
}
