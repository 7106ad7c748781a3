// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

const lateName = "iqn.2026-11.test:late"

// lateConfig has LUN 1, which is there, and LUN 2 at a path.
func lateConfig(t *testing.T, path string) *config.Config {
	t.Helper()
	there := filepath.Join(t.TempDir(), "there.img")
	if err := os.WriteFile(there, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Targets: []config.Target{{Name: lateName, LUNs: []config.LUN{{Number: 1, Options: storage.Options{Path: there}}, {Number: 2, Options: storage.Options{Path: path}}}}}}
	c.SetDefaults()
	return c
}

// lines are a log that can be looked at meanwhile.
type lines struct {
	mu    sync.Mutex // protects b
	b     bytes.Buffer
	grown chan struct{}     // holds one element after a line that nobody has waited for
	hold  func(line string) // if set, is called with each line before it is written
}

func (l *lines) Write(p []byte) (int, error) {
	if l.hold != nil {
		l.hold(string(p))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

// patience is how long a test waits for what should come at once. No working
// machine is as slow, however busy it is.
const patience = 2 * time.Minute

// await waits for the line that makes ok true.
func (l *lines) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for !ok() {
		select {
		case <-l.grown:
		case <-timeout:
			t.Fatalf("in vain: %s", what)
		}
	}
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// nothingWaits fails the test if a store is waited for after the attempt that
// is under way.
func nothingWaits(t *testing.T, s *Server) {
	t.Helper()
	if err := s.holdOpening(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { <-s.opening }()
	if n := len(s.late); n > 0 {
		t.Fatalf("%d stores are still waited for", n)
	}
}

// lateServer serves a configuration of which not all can be opened.
func lateServer(t *testing.T, o Options) (s *Server, log *lines) {
	t.Helper()
	log = newLines()
	return lateServerWith(t, o, log), log
}

func newLines() *lines { return &lines{grown: make(chan struct{}, 1)} }

// lateServerWith is lateServer with a log that is there.
func lateServerWith(t *testing.T, o Options, log *lines) *Server {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	o.MayBeLate = func(string, uint16) bool { return true }
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// dialLate logs in, and takes what is pending since the login.
func dialLate(t *testing.T, s *Server) *initiator.Session {
	t.Helper()
	session := login(t, s)
	if key, code := ready(t, session, 2); key != 6 || code != 0x2900 {
		t.Errorf("first of all: sense %x/%04x", key, code)
	}
	return session
}

// ready asks a logical unit and returns the sense data, zero for GOOD.
func ready(t *testing.T, s *initiator.Session, lun uint16) (key uint8, code uint16) {
	t.Helper()
	c := new(initiator.Command)
	c.LUN = initiator.LUN(lun)
	if err := s.Do(t.Context(), c); err != nil && len(c.Sense) == 0 {
		t.Fatal(err)
	}
	if len(c.Sense) == 0 {
		return 0, 0
	}
	return initiator.DecodeSense(c.Sense)
}

// waitOpened fails the test if a late store is not opened in time.
func waitOpened(t *testing.T, opened <-chan struct{}) {
	t.Helper()
	select {
	case <-opened:
	case <-time.After(patience):
		t.Fatal("the store is not opened")
	}
}

// makeFile puts a file at a path at once.
func makeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestMissingStoreIsNotReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	opened := make(chan struct{}, 1)
	s, log := lateServer(t, Options{
		Config: lateConfig(t, path), RetryInterval: time.Millisecond, Opened: func() { opened <- struct{}{} },
	})
	session := dialLate(t, s)
	if key, code := ready(t, session, 2); key != 2 || code != 0x0403 {
		t.Errorf("the missing one: sense %x/%04x, want 2/0403", key, code)
	}
	if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if b, err := session.Inquiry(t.Context(), initiator.LUN(2), true, 0x83, 255); err != nil || len(b) < 8 || b[0] != 0 {
		t.Errorf("INQUIRY of the missing one: % x, %v", b, err)
	}
	l := s.Status().Targets[0].LUNs[2]
	if l.Online || !strings.Contains(l.Error, "no such file") || l.StorePath != path || l.NAA == "" {
		t.Errorf("status: %+v", l)
	}
	if r := s.Running(); !r.NotOpen(lateName, 2) || r.NotOpen(lateName, 1) || r.NotOpen("iqn.2026-11.test:other", 2) {
		t.Error("Running does not tell which store is not open")
	}

	makeFile(t, path, bytes.Repeat([]byte{7}, 2<<20))
	waitOpened(t, opened)
	if key, code := ready(t, session, 2); key != 6 || code != 0x2800 {
		t.Errorf("when it has come: sense %x/%04x, want 6/2800", key, code)
	}
	buf := make([]byte, 512)
	c := new(initiator.Command).Read16(initiator.LUN(2), 4095, 1, buf, 0)
	if err := session.Do(t.Context(), c); err != nil || buf[511] != 7 {
		t.Errorf("a read: %v, %d", err, buf[511])
	}
	if err := session.Do(t.Context(), new(initiator.Command).Write16(initiator.LUN(2), 0, 1, make([]byte, 512), 0)); err != nil {
		t.Errorf("a write: %v", err)
	}
	if err := session.Do(t.Context(), new(initiator.Command).Unmap(initiator.LUN(2), initiator.Range{LBA: 8, Blocks: 8})); err != nil {
		t.Errorf("an UNMAP: %v", err)
	}
	if l := s.Status().Targets[0].LUNs[2]; !l.Online || l.Error != "" || l.Size != 2<<20 || s.Running().NotOpen(lateName, 2) {
		t.Errorf("status: %+v", l)
	}
	nothingWaits(t, s)
	if n := log.count("not ready"); n != 1 {
		t.Errorf("said %d times in the log", n)
	}
}

// A reason that changes is logged anew, and what is wrong with a file may be its format.
func TestReasonsOfLateStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	opened := make(chan struct{}, 1)
	s, log := lateServer(t, Options{
		Config: lateConfig(t, path), RetryInterval: time.Millisecond, Opened: func() { opened <- struct{}{} },
	})
	reason := func(want string) {
		t.Helper()
		log.await(t, want, func() bool { return strings.Contains(s.Status().Targets[0].LUNs[2].Error, want) })
	}
	reason("no such file")
	dialLate(t, s).Close()
	makeFile(t, path, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1<<20)...))
	reason("qemu-img convert")
	makeFile(t, path, make([]byte, 1<<20))
	waitOpened(t, opened)
	nothingWaits(t, s)
	if n := log.count("still not ready"); n != 1 {
		t.Errorf("said %d times in the log", n)
	}
}

// A successor opens what its predecessor could not, and is refused what that
// could.
func TestLateStoreIsHandedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	conf := lateConfig(t, path)
	conf.Targets[0].LUNs = conf.Targets[0].LUNs[1:]
	_, err := New(Options{Config: conf, Successor: true})
	if err == nil || !strings.Contains(err.Error(), "LUN 2: can't open backing store") {
		t.Errorf("a successor without the disk: %v", err)
	}
	old, _ := lateServer(t, Options{Config: conf, RetryInterval: time.Hour})
	session := dialLate(t, old)
	still, _ := lateServer(t, Options{Config: conf, Successor: true, RetryInterval: time.Hour})
	handOver(t, old, still)
	if key, code := ready(t, session, 2); key != 2 || code != 0x0403 {
		t.Errorf("after a handover without the disk: sense %x/%04x, want 2/0403", key, code)
	}
	makeFile(t, path, make([]byte, 1<<20))
	next, _ := lateServer(t, Options{Config: conf, Successor: true})
	handOver(t, still, next)
	if key, code := ready(t, session, 2); key != 6 || code != 0x2800 {
		t.Errorf("after a handover with the disk: sense %x/%04x, want 6/2800", key, code)
	}
	if key, code := ready(t, session, 2); key != 0 {
		t.Errorf("then: sense %x/%04x", key, code)
	}
}

// A disk that a session uses is not taken from it by a reload that can't open it, though
// the configuration has ignore-errors, unless that is forced.
func TestSuccessorThatCannotOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	makeFile(t, path, make([]byte, 1<<20))
	conf := lateConfig(t, path)
	conf.IgnoreErrors = true
	old, _ := lateServer(t, Options{Config: conf})
	session := dialLate(t, old)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, _ := lateServer(t, Options{Config: conf, Successor: true, RetryInterval: time.Hour})
	err := tryHandOver(t, old, next)
	if err == nil || !strings.Contains(err.Error(), "LUN 2, which") || !strings.Contains(err.Error(), "would not be ready") {
		t.Errorf("a successor without the disk: %v", err)
	}
	if key, code := ready(t, session, 2); key != 0 {
		t.Errorf("after that: sense %x/%04x", key, code)
	}
	forced, _ := lateServer(t, Options{Config: conf, Successor: true, RetryInterval: time.Hour, Force: true})
	handOver(t, old, forced)
	if key, code := ready(t, session, 2); key != 2 || code != 0x0403 {
		t.Errorf("after a forced one: sense %x/%04x, want 2/0403", key, code)
	}
}

// A successor that needs no store keeps none waiting: while a server is frozen
// nothing is opened, and after a thaw it is.
func TestNothingIsOpenedInAFreeze(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	opened := make(chan struct{}, 1)
	s, _ := lateServer(t, Options{
		Config: lateConfig(t, path), RetryInterval: time.Millisecond, Opened: func() { opened <- struct{}{} },
	})
	dialLate(t, s)
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	makeFile(t, path, make([]byte, 1<<20))
	if l, err := os.OpenFile(path, os.O_RDWR, 0); err != nil || len(opened) > 0 || s.Status().Targets[0].LUNs[2].Online {
		t.Errorf("opened in a freeze (%v)", err)
	} else {
		l.Close()
	}
	s.Thaw()
	waitOpened(t, opened)
}

// A logical unit that is taken away while it waits is not opened any more.
func TestLateUnitIsDetached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	tried := make(chan struct{}, 1)
	s, _ := lateServer(t, Options{Config: lateConfig(t, path), RetryInterval: time.Millisecond, Known: func(file string) bool {
		if file == path { // it is there, and is being opened
			select {
			case tried <- struct{}{}:
			default:
			}
		}
		return false
	}})
	dialLate(t, s).Close()
	if err := s.Detach(lateName, 2); err != nil {
		t.Fatal(err)
	}
	makeFile(t, path, make([]byte, 1<<20))
	waitOpened(t, tried)
	nothingWaits(t, s)
}

// preallocating serves a disk whose space is being taken by the retry. That goes on when
// the server wants it to end.
func preallocating(t *testing.T) (s *Server, log *lines, session *initiator.Session) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sub")
	conf := lateConfig(t, filepath.Join(dir, "disk.img"))
	l := &conf.Targets[0].LUNs[1]
	l.Create, l.Preallocate, l.Size = true, true, 160<<20
	began, slow := make(chan struct{}, 1), make(chan struct{})
	log = newLines()
	log.hold = func(line string) { // of the goroutine that takes the space
		if strings.Contains(line, "preallocating") {
			began <- struct{}{}
			<-slow
		}
	}
	s = lateServerWith(t, Options{Config: conf, RetryInterval: time.Millisecond}, log)
	session = dialLate(t, s)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	<-began
	released := make(chan struct{})
	go func() {
		defer close(released)
		for s.paused() == nil {
			time.Sleep(time.Millisecond)
		}
		close(slow)
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-released
	})
	return s, log, session
}

// A preallocation that is under way when an upgrade begins ends, and goes on in the
// successor, which does not wait for it either.
func TestUpgradeInterruptsAPreallocation(t *testing.T) {
	old, log, session := preallocating(t)
	l := &old.conf.Targets[0].LUNs[1]
	next, nextLog := lateServer(t, Options{Config: old.conf, Successor: true, RetryInterval: time.Millisecond})
	if st, err := os.Stat(l.Path); err != nil || st.Size() != 0 || nextLog.count("preallocating") > 0 {
		t.Errorf("the successor takes space before it serves: %v, %v", st, err)
	}
	handOver(t, old, next)
	if log.count("logical unit ready") > 0 {
		t.Error("the upgrade has waited for the whole preallocation")
	}
	next.Serve()
	nextLog.await(t, "ready in the successor", func() bool { return next.Status().Targets[0].LUNs[2].Online })
	if key, code := ready(t, session, 2); key != 6 || code != 0x2800 {
		t.Errorf("when it has come: sense %x/%04x, want 6/2800", key, code)
	}
	if st := next.Status().Targets[0].LUNs[2]; st.Size != l.Size || st.Error != "" {
		t.Errorf("status: %+v", st)
	}
}

// An end does not wait for a preallocation either.
func TestCloseInterruptsAPreallocation(t *testing.T) {
	s, _, session := preallocating(t)
	session.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(s.conf.Targets[0].LUNs[1].Path); err != nil || st.Size() != 0 {
		t.Errorf("the whole space was taken: %v, %v", st, err)
	}
}
