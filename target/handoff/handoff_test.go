// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden snapshot of the present schema if it is missing")

// state is what the tests move.
type state struct {
	Text  string            `cbor:"1,keyasint"`
	Count uint64            `cbor:"2,keyasint"`
	Map   map[string]uint32 `cbor:"3,keyasint"`
}

func testState() state {
	return state{Text: "behind a CmdSN gap", Count: 1 << 40, Map: map[string]uint32{"ExpCmdSN": 7, "StatSN": 0xffffffff}}
}

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// fakeGiver gives testState and some files, and records what is asked of it.
type fakeGiver struct {
	calls  []string
	needs  []string
	files  int
	freeze error
	snap   func() // runs in Snapshot
}

func (g *fakeGiver) Needs() []string { return g.needs }
func (g *fakeGiver) Freeze(context.Context) error {
	g.calls = append(g.calls, "freeze")
	return g.freeze
}
func (g *fakeGiver) Thaw()      { g.calls = append(g.calls, "thaw") }
func (g *fakeGiver) Committed() { g.calls = append(g.calls, "committed") }
func (g *fakeGiver) Snapshot(s *Snapshot) ([]int, error) {
	g.calls = append(g.calls, "snapshot")
	if g.snap != nil {
		g.snap()
	}
	var fds []int
	for range g.files {
		fds = append(fds, int(os.Stdin.Fd()))
		s.Files = append(s.Files, File{Kind: "stdin"})
	}
	return fds, s.Put("test", testState())
}

// fakeTaker keeps what it gets.
type fakeTaker struct {
	got     state
	files   int
	started bool
	restore func() error
}

func (k *fakeTaker) Restore(s *Snapshot, files []*os.File) error {
	k.files = len(files)
	closeAll(files)
	if k.restore != nil {
		if err := k.restore(); err != nil {
			return err
		}
	}
	return s.Get("test", &k.got)
}

func (k *fakeTaker) Start() { k.started = true }

// TestTextOfAnyBytes: names, aliases and paths that are no UTF-8 do not end an upgrade, in what
// a predecessor of before has written neither.
func TestTextOfAnyBytes(t *testing.T) {
	const text = "Latin-1: \xfc, \xff\xfe"
	want := state{Text: text, Map: map[string]uint32{text: 1}}
	s := &Snapshot{Schema: Schema, Version: text, Files: []File{{Kind: "lock", Name: text}}, History: []Report{{Error: text}}}
	if err := s.Put("test", &want); err != nil {
		t.Fatal(err)
	}
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var got state
	if err := read.Get("test", &got); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(want, got) || !cmp.Equal(s.Files, read.Files) || !cmp.Equal(s.History, read.History) || read.Version != text {
		t.Errorf("%+v of %+v", got, read)
	}
}

// give runs Give against a successor's side that other plays.
func give(t *testing.T, g *fakeGiver, limit time.Duration, other func(c *net.UnixConn)) (*Report, error) {
	t.Helper()
	a, b := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		other(b)
	}()
	r := new(Report)
	err := Give(t.Context(), a, g, Options{Version: "old", Limit: limit, Kill: func() { b.Close() }}, time.Now(), r)
	a.Close()
	<-done
	return r, err
}

func TestHandoff(t *testing.T) {
	g, k := &fakeGiver{files: 2*filesAtOnce + 7}, new(fakeTaker)
	var got []Report
	var takeErr error
	r, err := give(t, g, 0, func(c *net.UnixConn) {
		got, takeErr = Take(t.Context(), c, k, Hello{Version: "new"})
	})
	if err != nil || takeErr != nil {
		t.Fatalf("Give: %v, Take: %v", err, takeErr)
	}
	if diff := cmp.Diff(testState(), k.got); diff != "" {
		t.Errorf("the state changed on its way:\n%s", diff)
	}
	if k.files != g.files || !k.started {
		t.Errorf("%d of %d files arrived, started: %v", k.files, g.files, k.started)
	}
	if diff := cmp.Diff([]string{"freeze", "snapshot", "committed"}, g.calls); diff != "" {
		t.Errorf("calls:\n%s", diff)
	}
	if r.Pause <= 0 || len(got) != 1 || got[0].Pause != r.Pause || r.NewVersion != "new" || r.OldVersion != "old" || r.Bytes == 0 {
		t.Fatalf("report %+v, the successor's %+v", r, got)
	}
	var names []string
	var sum time.Duration
	for i, p := range got[0].Phases {
		names = append(names, p.Name)
		if i > 0 {
			sum += p.Duration
		}
	}
	if diff := cmp.Diff([]string{"start", "freeze", "snapshot", "send", "prepare", "commit", "resume"}, names); diff != "" {
		t.Errorf("phases that the successor knows:\n%s", diff)
	}
	if sum != r.Pause {
		t.Errorf("phases of the pause come to %v, and the pause is %v: %v", sum, r.Pause, got[0].Phases)
	}
}

// Whatever goes wrong before COMMIT, the giver serves as before.
func TestFailures(t *testing.T) {
	hello := func(c *net.UnixConn) wire {
		w := wire{c}
		if err := w.send(&message{Kind: kindHello, Hello: &Hello{Version: "new", Oldest: 1, Newest: Schema}}); err != nil {
			t.Error(err)
		}
		return w
	}
	thawed := []string{"freeze", "snapshot", "thaw"}
	for _, c := range []struct {
		name  string
		giver fakeGiver
		other func(c *net.UnixConn)
		calls []string
		want  string
	}{
		{"dies before HELLO", fakeGiver{}, func(c *net.UnixConn) { c.Close() }, nil, "before the freeze: waiting for HELLO: the other process has gone"},
		{"cannot start", fakeGiver{}, func(c *net.UnixConn) { _ = wire{c}.fail(errors.New("no such disk")) }, nil, "no such disk"},
		{"older schema", fakeGiver{}, func(c *net.UnixConn) {
			_ = wire{c}.send(&message{Kind: kindHello, Hello: &Hello{Version: "v0", Oldest: 0, Newest: 0}})
		}, nil, "version v0 reads snapshot schemas 0 to 0"},
		{"lacks a feature", fakeGiver{needs: []string{"memory"}}, func(c *net.UnixConn) { hello(c) }, nil, `lacks the feature "memory"`},
		{"freeze fails", fakeGiver{freeze: errors.New("LBA 7 is stuck")}, func(c *net.UnixConn) { hello(c) }, []string{"freeze"}, "LBA 7 is stuck"},
		{"dies with the snapshot", fakeGiver{}, func(c *net.UnixConn) {
			w := hello(c)
			_, files, _ := w.receiveSnapshot()
			closeAll(files)
			c.Close()
		}, thawed, "after the snapshot was sent: waiting for PREPARED: the other process has gone"},
		{"can't restore", fakeGiver{files: 3}, func(c *net.UnixConn) {
			_, err := Take(t.Context(), c, &fakeTaker{restore: func() error { return errors.New("two disks") }}, Hello{})
			if err == nil {
				t.Error("Take has no error")
			}
		}, thawed, "two disks"},
		{"panics", fakeGiver{}, func(c *net.UnixConn) {
			if _, err := Take(t.Context(), c, &fakeTaker{restore: func() error { panic("out of range") }}, Hello{}); err == nil {
				t.Error("Take has no error")
			}
		}, thawed, "can't take over: panic: out of range (handoff.TestFailures"},
		{"dies before TAKEN", fakeGiver{}, func(c *net.UnixConn) {
			w := hello(c)
			if _, _, err := w.receiveSnapshot(); err != nil {
				t.Error(err)
			}
			_ = w.send(&message{Kind: kindPrepared})
			c.Close()
		}, thawed, "after COMMIT"},
		{"talks nonsense", fakeGiver{}, func(c *net.UnixConn) {
			hello(c)
			_, _ = c.Write([]byte{0xff, 0x00})
		}, thawed, "after the snapshot was sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := give(t, &c.giver, 0, c.other)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if diff := cmp.Diff(c.calls, c.giver.calls); diff != "" {
				t.Errorf("calls:\n%s", diff)
			}
		})
	}
}

// A successor that hangs is killed when the pause reaches its limit.
func TestPauseLimit(t *testing.T) {
	g := new(fakeGiver)
	_, err := give(t, g, 50*time.Millisecond, func(c *net.UnixConn) {
		w := wire{c}
		_ = w.send(&message{Kind: kindHello, Hello: &Hello{Oldest: 1, Newest: Schema}})
		_, files, _ := w.receiveSnapshot()
		closeAll(files)
		_, _, _ = w.receive() // says nothing until it is killed
	})
	if err == nil || !strings.Contains(err.Error(), "limit of 50ms") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"freeze", "snapshot", "thaw"}, g.calls); diff != "" {
		t.Errorf("calls:\n%s", diff)
	}
}

// A successor that is killed after TAKEN takes the sessions with it: the giver
// must not touch them again.
func TestTakenAndDead(t *testing.T) {
	a, b := pair(t)
	w := wire{b}
	if err := w.send(&message{Kind: kindTaken}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	err := commit(t.Context(), wire{a}, Options{Kill: func() {}}, &stopwatch{r: new(Report)})
	if !errors.Is(err, errTakenAndDead) {
		t.Fatalf("error %v, want %v", err, errTakenAndDead)
	}
}

// A request to give up comes too late when COMMIT is on its way: the successor
// is not killed in the moment when it takes over.
func TestCanceledAfterCommit(t *testing.T) {
	a, b := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		w := wire{b}
		_, _, err := w.expect(kindCommit)
		cancel()
		done <- errors.Join(err, w.send(&message{Kind: kindTaken}))
	}()
	err := commit(ctx, wire{a}, Options{Kill: func() { t.Error("the successor was killed") }}, &stopwatch{r: new(Report)})
	if err != nil || <-done != nil {
		t.Errorf("error %v", err)
	}
	if err := commit(ctx, wire{a}, Options{}, &stopwatch{r: new(Report)}); !errors.Is(err, context.Canceled) {
		t.Errorf("a request to give up before COMMIT: error %v", err)
	}
}

// What a successor says before it dies is heard, although its death ends the
// time that there is to listen, and although files were on their way to it.
func TestLastWords(t *testing.T) {
	for _, c := range []struct {
		name string
		talk func(ctx context.Context, a wire) error
	}{
		{"before the freeze", func(ctx context.Context, a wire) error { _, err := awaitHello(ctx, a); return err }},
		{"with the snapshot unread", func(ctx context.Context, a wire) error {
			_, err := prepare(ctx, a, new(fakeGiver), &Snapshot{Schema: Schema}, &stopwatch{r: new(Report)})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			_ = wire{a}.send(&message{Kind: kindFiles}, 0) // b leaves it unread
			_ = wire{b}.fail(errors.New("no such disk"))
			b.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errors.New("the successor died"))
			if err := c.talk(ctx, wire{a}); err == nil || !strings.Contains(err.Error(), "no such disk") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A predecessor that dies after it has sent everything leaves it to the
// successor; one that dies earlier leaves nothing.
func TestPredecessorDies(t *testing.T) {
	for _, c := range []struct {
		name     string
		after    func(w wire) // HELLO has been read
		takes    bool
		restored bool
	}{
		{"before the snapshot", func(wire) {}, false, false},
		{"between files and snapshot", func(w wire) { _ = w.send(&message{Kind: kindFiles}, 0) }, false, false},
		{"before PREPARED", func(w wire) { sendTestSnapshot(t, w) }, true, true},
		{"before COMMIT", func(w wire) {
			sendTestSnapshot(t, w)
			_, _, _ = w.expect(kindPrepared)
		}, true, true},
		{"after COMMIT", func(w wire) {
			sendTestSnapshot(t, w)
			_, _, _ = w.expect(kindPrepared)
			_ = w.send(&message{Kind: kindCommit, Report: new(Report)})
		}, true, true},
		{"after ABORT", func(w wire) {
			sendTestSnapshot(t, w)
			_ = w.send(&message{Kind: kindAbort})
		}, false, true},
		{"after ABORT, with PREPARED unread", func(w wire) {
			sendTestSnapshot(t, w)
			_ = w.send(&message{Kind: kindAbort})
			awaitReadable(t, w)
		}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				w := wire{a}
				if _, _, err := w.expect(kindHello); err != nil {
					t.Error(err)
				}
				c.after(w)
				a.Close()
			}()
			k := new(fakeTaker)
			_, err := Take(t.Context(), b, k, Hello{})
			<-done
			if (err == nil) != c.takes || k.started != c.takes {
				t.Errorf("Take: %v, started: %v; want taken: %v", err, k.started, c.takes)
			}
			if (k.got.Text != "") != c.restored {
				t.Errorf("restored %+v", k.got)
			}
		})
	}
}

// awaitReadable returns when a message is there to read.
func awaitReadable(t *testing.T, w wire) {
	raw, err := w.c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
	if err != nil {
		t.Error(err)
	}
}

func sendTestSnapshot(t *testing.T, w wire) {
	s := &Snapshot{Schema: Schema, Version: "old"}
	if err := s.Put("test", testState()); err != nil {
		t.Error(err)
	}
	b, err := s.Marshal()
	if err != nil {
		t.Error(err)
	}
	if err := w.sendSnapshot(s, b, nil, nil); err != nil {
		t.Error(err)
	}
}

// Every cut and every flipped bit of a snapshot is noticed.
func TestDamage(t *testing.T) {
	s := &Snapshot{Schema: Schema, Version: "v1"}
	if err := s.Put("test", testState()); err != nil {
		t.Fatal(err)
	}
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := Unmarshal(b[:i]); err == nil {
			t.Errorf("the first %d of %d bytes pass for a snapshot", i, len(b))
		}
		for bit := range 8 {
			d := bytes.Clone(b)
			d[i] ^= 1 << bit
			if _, err := Unmarshal(d); err == nil {
				t.Errorf("bit %d of byte %d flipped, and it passes", bit, i)
			}
		}
	}
}

// Snapshots of every schema that was ever released must be readable for ever.
func TestGolden(t *testing.T) {
	present := filepath.Join("testdata", "schema1.snapshot")
	if _, err := os.Stat(present); errors.Is(err, os.ErrNotExist) && *update {
		s := &Snapshot{Schema: Schema, Version: "golden", Frozen: 12345, Files: []File{{"connection", "192.0.2.1:3260"}}}
		if err := s.Put("test", testState()); err != nil {
			t.Fatal(err)
		}
		b, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(present, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(present)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var got state
	if err := s.Get("test", &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testState(), got); diff != "" || s.Files[0].Kind != "connection" || s.Frozen != 12345 {
		t.Errorf("golden snapshot reads as %+v:\n%s", s, diff)
	}
}

func FuzzUnmarshal(f *testing.F) {
	s := &Snapshot{Schema: Schema, Extents: map[string][]Extent{"test": {{Index: 1, Offset: 2, Length: 3}}}, History: []Report{{Phases: []Phase{{Name: "freeze"}}}}}
	if err := s.Put("test", testState()); err != nil {
		f.Fatal(err)
	}
	b, err := s.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(false, b)
	f.Add(true, b[headerLen:])
	f.Add(false, []byte(magic))
	f.Fuzz(func(t *testing.T, framed bool, b []byte) {
		if framed { // or nothing but headers would be tried
			h := binary.BigEndian.AppendUint32([]byte(magic), Schema)
			h = binary.BigEndian.AppendUint32(h, crc32.Checksum(b, castagnoli))
			b = append(binary.BigEndian.AppendUint64(h, uint64(len(b))), b...)
		}
		s, err := Unmarshal(b)
		if err != nil {
			return
		}
		s.Schema = Schema // the header's counts
		_ = s.Get("test", new(state))
		again, err := s.Marshal()
		if err == nil {
			_, err = Unmarshal(again)
		}
		if err != nil {
			t.Fatalf("a snapshot that can be read can't be written and read: %v", err)
		}
	})
}
