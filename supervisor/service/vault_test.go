// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/supervisor/vault"
)

// vaultUser is what a generation does with the vault in these tests. What it has done is in two
// files that outlive it: which descriptors it has found, and a log.
type vaultUser struct {
	client     *vault.Client
	generation int
	log        *os.File
	live       []uint64 // ids of what is in the vault
}

// steadySockets is how many sockets a steady user of the vault has there.
const steadySockets = 5

// useVault notes what the vault has. A steady user adds sockets if there are none, another one
// puts and drops sockets until it is killed.
func useVault(p *supervisor.Process, dir string, steady bool) error {
	if p.Vault() == nil {
		return errors.New("there is no vault")
	}
	c, err := vault.Open(context.Background(), p.Vault(), vault.ClientOptions{
		Refused: func(id uint64, err error) { fmt.Fprintln(os.Stderr, "refused:", id, err) },
	})
	if err != nil {
		return err
	}
	u := &vaultUser{client: c, generation: p.Generation()}
	u.log, err = os.OpenFile(filepath.Join(dir, "vault.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := u.noteFound(dir); err != nil {
		return err
	}
	go func() {
		<-c.Gone()
		fmt.Fprintln(os.Stderr, "generation", u.generation, "has lost the vault")
	}()
	if !steady {
		go func() { fmt.Fprintln(os.Stderr, "the vault's user has ended:", u.putAndDrop()) }()
		return nil
	}
	for len(u.live) < steadySockets {
		if err := u.put(); err != nil {
			return err
		}
	}
	return nil
}

func foundFile(dir string, generation int) string {
	return filepath.Join(dir, fmt.Sprintf("found-%d", generation))
}

func (u *vaultUser) noteFound(dir string) error {
	kept, err := u.client.List(context.Background(), "")
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, k := range kept {
		// The socket itself has come, and not only its number.
		cookie, err := unix.GetsockoptUint64(k.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil || cookie != k.ID {
			return fmt.Errorf("descriptor %d is socket %d, %w", k.ID, cookie, err)
		}
		_ = unix.Close(k.FD)
		fmt.Fprintln(&text, k.ID)
		u.live = append(u.live, k.ID)
	}
	return os.WriteFile(foundFile(dir, u.generation), []byte(text.String()), 0o600)
}

func (u *vaultUser) note(what string, id uint64) error {
	_, err := fmt.Fprintln(u.log, u.generation, what, id)
	return err
}

func (u *vaultUser) put() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	id, err := vault.ID(f)
	if err == nil {
		err = u.client.Put(id, "socket", f)
	}
	if err == nil {
		err = u.note("put", id)
	}
	u.live = append(u.live, id)
	return err
}

// drop drops one of what is there, and says before and after that it does.
func (u *vaultUser) drop() error {
	i := rand.IntN(len(u.live))
	id := u.live[i]
	u.live[i] = u.live[len(u.live)-1]
	u.live = u.live[:len(u.live)-1]
	err := u.note("dropping", id)
	if err == nil {
		err = u.client.Drop(id)
	}
	if err == nil {
		err = u.note("dropped", id)
	}
	return err
}

func (u *vaultUser) putAndDrop() error {
	for {
		const about = 50
		next := u.put
		if rand.IntN(2*about) < len(u.live) {
			next = u.drop
		}
		if err := next(); err != nil {
			return err
		}
		<-time.After(rand.N(100 * time.Microsecond)) // leaves the machine to the others
	}
}

// found returns what a generation has found in the vault.
func (s *supervised) found(generation int) map[uint64]bool {
	s.t.Helper()
	text, err := os.ReadFile(foundFile(s.dir, generation))
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[uint64]bool{}
	for line := range strings.Lines(string(text)) {
		var id uint64
		if _, err := fmt.Sscan(line, &id); err != nil {
			s.t.Fatal(err)
		}
		found[id] = true
	}
	return found
}

// checkFound compares what a generation has found with what those before it have noted, and returns
// how many descriptors had to be there. The last line of one that was killed may be missing.
func (s *supervised) checkFound(generation int) (wanted int) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "vault.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	state := map[uint64]string{}
	for line := range strings.Lines(string(text)) {
		var by int
		var what string
		var id uint64
		if _, err := fmt.Sscan(line, &by, &what, &id); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		// A successor may drop what its predecessor has put and not noted yet.
		if by < generation && (what != "put" || state[id] == "") && state[id] != "dropped" {
			state[id] = what
		}
	}
	found := s.found(generation)
	for id, what := range state {
		switch {
		case what == "put" && !found[id]:
			s.t.Errorf("generation %d: socket %d was put and is lost", generation, id)
			s.logLines(string(text), id)
		case what == "dropped" && found[id]:
			s.t.Errorf("generation %d: socket %d was dropped and is still there", generation, id)
			s.logLines(string(text), id)
		case what == "put":
			wanted++
		}
	}
	return wanted
}

// logLines shows what was noted of a socket.
func (s *supervised) logLines(text string, id uint64) {
	s.t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, fmt.Sprintf(" %d\n", id)) {
			s.t.Log(line)
		}
	}
}

// Generations that put and drop sockets are killed at random moments, and each is the successor of
// another: nothing is lost for which sendmsg had returned, and nothing is kept that was dropped.
func TestVaultOutlivesGenerations(t *testing.T) {
	const rounds = 10
	s := newSupervised(t, nil)
	s.fault("vault")
	s.run()
	s.untilServing()
	wanted := 0
	for range rounds {
		s.reload() // which also takes back the delay of the next restart
		st := s.until("alone", func(st Status) bool { return len(st.Retiring) == 0 })
		<-time.After(rand.N(20 * time.Millisecond)) // any moment will do
		if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		st = s.until("restarted", func(now Status) bool { return now.State == Serving && now.Main.PID != st.Main.PID })
		wanted += s.checkFound(st.Main.Number)
		if t.Failed() {
			break
		}
	}
	if wanted == 0 {
		t.Error("no descriptor had to be there: the test shows nothing")
	}
	if log := s.log.String(); strings.Contains(log, "refused") {
		t.Error("the vault has refused something")
	}
	t.Logf("%d descriptors found again after %d deaths", wanted, rounds)
}

// What is in the vault outlives an upgrade, the supervisor's own replacement and a crash, and
// ends with a stop.
func TestWhatTheVaultOutlives(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("vault-steady")
	s.run()
	check := func(when string, generation, found int) {
		t.Helper()
		if n := len(s.found(generation)); n != found {
			t.Errorf("%s: generation %d has found %d, want %d", when, generation, n, found)
		}
		// What was put may still be in the queue.
		s.until("with all sockets in the vault "+when, func(st Status) bool { return st.Vault != nil && st.Vault.Held == steadySockets })
		if v := s.now().Vault; v.Names["socket"] != steadySockets || v.Max != DefaultMaxVault {
			t.Errorf("%s: the vault is %+v", when, v)
		}
	}
	s.untilServing()
	check("at first", 1, 0)
	st := s.reload()
	check("after a handoff", 2, steadySockets)
	if _, err := s.Reexec(s.context()); err != nil {
		t.Fatal(err)
	}
	check("after a reexec", 2, steadySockets)
	if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("restarted", func(now Status) bool { return now.State == Serving && now.Main.PID != st.Main.PID })
	check("after a crash", 3, steadySockets)
	result, err := s.Restart(s.context())
	if err != nil {
		t.Fatal(err)
	}
	check("after a restart", 4, steadySockets)
	if result, err = s.Stop(s.context()); err != nil {
		t.Fatal(err)
	}
	if v := result.Status.Vault; v == nil || v.Held != 0 {
		t.Errorf("after a stop the vault is %+v", v)
	}
	if _, err := s.Restart(s.context()); err != nil {
		t.Fatal(err)
	}
	check("after a stop", 5, 0)
}

// A service under a supervisor without a vault runs, and is told that there is none.
func TestWithoutVault(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.MaxVault = -1 })
	s.run()
	if st := s.untilServing(); st.Vault != nil {
		t.Errorf("the vault is %+v", st.Vault)
	}
	if st := s.reload(); st.Main.Number != 2 {
		t.Errorf("generation %d serves", st.Main.Number)
	}
}

// A supervisor of before there was a vault takes over: it is left nothing that it would have open for good,
// and the service hears that nothing is kept any more.
func TestSupervisorThatKnowsOfNoVault(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("vault-steady")
	s.run()
	st := s.untilServing()
	program := filepath.Join(s.dir, "program")
	copyFile(t, s.binary, program)
	s.replaceBinary("#!/bin/sh\nunset UPGRADED_PROBE_VAULT\nexec " + program + " \"$@\"\n")
	if _, err := s.Reexec(s.context()); err != nil {
		t.Fatal(err)
	}
	s.untilLogged("the new supervisor has no vault")
	s.untilLogged("generation 1 has lost the vault")
	if v := s.now().Vault; v == nil || v.Held != 0 {
		t.Errorf("the vault is %+v", v)
	}
	if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("restarted", func(now Status) bool {
		return now.State == Serving && now.Main.PID != st.Main.PID && now.Vault.Held == steadySockets
	})
	if n := len(s.found(2)); n != 0 {
		t.Errorf("generation 2 has found %d", n)
	}
}
