// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout is for what fails the test.
const testTimeout = time.Minute

func newVault(t testing.TB, o Options) *Vault {
	t.Helper()
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	v.Serve()
	t.Cleanup(v.Close)
	return v
}

// doorOf is the door as a generation inherits it.
func doorOf(t testing.TB, v *Vault) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(v.Door()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	door := os.NewFile(uintptr(fd), "door")
	t.Cleanup(func() { _ = door.Close() })
	return door
}

func newClient(t testing.TB, door *os.File, o ClientOptions) *Client {
	t.Helper()
	c, err := Open(context.Background(), door, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newPair returns two ends of a connection, and the first one's id.
func newPair(t testing.TB) (near, far *os.File, id uint64) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far = os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	if id, err = ID(near); err != nil {
		t.Fatal(err)
	}
	return near, far, id
}

// list returns what the vault has, and closes it.
func list(t testing.TB, c *Client, name string) (ids []uint64) {
	t.Helper()
	kept, err := c.List(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kept {
		if got, err := cookieOf(k.FD); err != nil || got != k.ID {
			t.Errorf("%d is listed with the descriptor of socket %d, %v", k.ID, got, err)
		}
		ids = append(ids, k.ID)
	}
	closeKept(kept)
	return ids
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(testTimeout); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is put is listed, by name or at all and over several pages; what is dropped is not.
func TestPutDropList(t *testing.T) {
	v := newVault(t, Options{Max: 1000})
	c := newClient(t, doorOf(t, v), ClientOptions{})
	if c.Max() != 1000 {
		t.Errorf("the bound is %d", c.Max())
	}
	var want, odd []uint64
	for i := range 2*pageFiles + 7 {
		near, _, id := newPair(t)
		name := fmt.Sprintf("name-%d", i%2)
		must(t, c.Put(id, name, near))
		if i%3 == 0 {
			must(t, c.Drop(id))
			continue
		}
		want = append(want, id)
		if i%2 == 1 {
			odd = append(odd, id)
		}
	}
	if got := list(t, c, ""); !slices.Equal(got, want) {
		t.Errorf("%d descriptors are listed, want %d", len(got), len(want))
	}
	if got := list(t, c, "name-1"); !slices.Equal(got, odd) {
		t.Errorf("%d descriptors of a name are listed, want %d", len(got), len(odd))
	}
	if got := list(t, c, "name-2"); len(got) != 0 {
		t.Errorf("of a name that nothing has, %d are listed", len(got))
	}
	if n := v.Counts(); n.Held != len(want) || n.Names["name-1"] != len(odd) || n.Refused != 0 {
		t.Errorf("%+v", n)
	}
}

// A second PUT with an id takes the place of the first.
func TestPutAgain(t *testing.T) {
	v := newVault(t, Options{Max: 2})
	c := newClient(t, doorOf(t, v), ClientOptions{})
	near, _, id := newPair(t)
	other, _, otherID := newPair(t)
	for range 3 {
		must(t, c.Put(id, "again", near))
	}
	must(t, c.Put(otherID, "other", other))
	if got := list(t, c, ""); !slices.Equal(got, []uint64{id, otherID}) {
		t.Errorf("%v are listed", got)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer f.Close()
	must(t, c.Drop(id))
	must(t, c.Put(NotSocket|1, "file", f))
	kept, err := c.List(context.Background(), "file")
	must(t, err)
	if len(kept) != 1 || kept[0].ID != NotSocket|1 || kept[0].Name != "file" {
		t.Errorf("%+v", kept)
	}
	closeKept(kept)
}

// refusals collects what a client is told.
type refusals struct {
	mu   sync.Mutex // protects told
	told map[uint64]string
}

func (r *refusals) note(id uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[uint64]string{}
	}
	r.told[id] = err.Error()
}

func (r *refusals) of(id uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[id]
}

func TestFullVaultSaysSo(t *testing.T) {
	var logged refusals
	v := newVault(t, Options{Max: 2, Refused: func(name string, err error) { logged.note(0, fmt.Errorf("%s: %w", name, err)) }})
	var told refusals
	c := newClient(t, doorOf(t, v), ClientOptions{Refused: told.note})
	var ids []uint64
	for range 3 {
		near, _, id := newPair(t)
		must(t, c.Put(id, "s", near))
		ids = append(ids, id)
	}
	await(t, "the refusal", func() bool { return told.of(ids[2]) != "" })
	if want := "the vault is full: it keeps 2 descriptors, which is the bound"; told.of(ids[2]) != want || logged.of(0) != "s: "+want {
		t.Errorf("refused: %q, logged %q", told.of(ids[2]), logged.of(0))
	}
	if got := list(t, c, ""); !slices.Equal(got, ids[:2]) || v.Counts().Refused != 1 {
		t.Errorf("%v are listed, %+v", got, v.Counts())
	}
	near, _, id := newPair(t)
	if err := c.Put(id, "a:b", near); err == nil || !strings.Contains(err.Error(), `the character ':'`) {
		t.Errorf("a bad name: %v", err)
	}
}

// A supervisor that can have no more descriptors says so, and goes on.
func TestNoDescriptorsLeft(t *testing.T) {
	v := newVault(t, Options{Max: 1000})
	var told refusals
	c := newClient(t, doorOf(t, v), ClientOptions{Refused: told.note})
	near, _, id := newPair(t)
	again, _, againID := newPair(t)
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	v.mu.Lock() // nothing is received while the limit is set
	must(t, c.Put(id, "s", near))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}))
	v.mu.Unlock()
	await(t, "the refusal", func() bool { return told.of(id) != "" })
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	if !strings.Contains(told.of(id), "RLIMIT_NOFILE is 3") {
		t.Errorf("refused: %s", told.of(id))
	}
	must(t, c.Put(againID, "s", again))
	if got := list(t, c, ""); !slices.Equal(got, []uint64{againID}) {
		t.Errorf("%v are listed", got)
	}
}

// A socket that hangs up is let go of, also if its owner has forgotten it, and so is a client.
func TestHangUpsAreLetGoOf(t *testing.T) {
	v := newVault(t, Options{Max: 10})
	door := doorOf(t, v)
	c := newClient(t, door, ClientOptions{})
	other, err := Open(context.Background(), door, ClientOptions{})
	must(t, err)
	near, far, id := newPair(t)
	stays, _, staysID := newPair(t)
	must(t, other.Put(id, "s", near))
	must(t, other.Put(staysID, "s", stays))
	if got := list(t, c, ""); len(got) != 2 {
		t.Fatalf("%v are listed", got)
	}
	must(t, far.Close())
	await(t, "the hang-up", func() bool { return v.Counts().Held == 1 })
	if got := list(t, c, ""); !slices.Equal(got, []uint64{staysID}) {
		t.Errorf("%v are listed", got)
	}
	must(t, other.Close())
	await(t, "the client's end", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.clients) == 1
	})
}

// The peer of a connection that is hung up hears of it, although the vault still had it.
func TestHangUpIsHeardByThePeer(t *testing.T) {
	v := newVault(t, Options{Max: 10})
	c := newClient(t, doorOf(t, v), ClientOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer peer.Close()
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	id, err := ID(tcp)
	must(t, err)
	must(t, c.Put(id, "s", tcp))
	if got := list(t, c, ""); len(got) != 1 {
		t.Fatalf("%v are listed", got)
	}
	v.mu.Lock() // and the DROP is not dealt with yet
	must(t, c.HangUp(id, tcp))
	must(t, peer.SetReadDeadline(time.Now().Add(testTimeout)))
	n, err := peer.Read(make([]byte, 1))
	v.mu.Unlock()
	if n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer reads %d, %v", n, err)
	}
	if got := list(t, c, ""); len(got) != 0 {
		t.Errorf("%v are listed", got)
	}
}

// A vault that is closed tells its clients, and the peers of what it has.
func TestEndOfTheVault(t *testing.T) {
	v, err := New(Options{Max: 10})
	must(t, err)
	v.Serve()
	door := doorOf(t, v)
	c := newClient(t, door, ClientOptions{})
	near, far, id := newPair(t)
	must(t, c.Put(id, "s", near))
	v.Close()
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the peer reads %d, %v", n, err)
	}
	<-c.Gone()
	if err := c.Put(id, "s", near); !errors.Is(err, ErrGone) {
		t.Errorf("PUT: %v", err)
	}
	if _, err := c.List(context.Background(), ""); !errors.Is(err, ErrGone) {
		t.Errorf("LIST: %v", err)
	}
	if _, err := Open(context.Background(), door, ClientOptions{}); !errors.Is(err, ErrGone) {
		t.Errorf("a new client: %v", err)
	}
}

// closeOnExec reports whether all, or none, of the descriptors have the flag.
func closeOnExec(t *testing.T, fds []int) (all, none bool) {
	t.Helper()
	all, none = true, true
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		must(t, err)
		if flags&unix.FD_CLOEXEC == 0 {
			all = false
		} else {
			none = false
		}
	}
	return all, none
}

// Between Keep and an execve(2) that fails nothing is received, and afterwards the vault goes on.
func TestKeepIsTakenBack(t *testing.T) {
	v := newVault(t, Options{Max: 10})
	c := newClient(t, doorOf(t, v), ClientOptions{})
	near, _, id := newPair(t)
	later, _, laterID := newPair(t)
	must(t, c.Put(id, "s", near))
	list(t, c, "")
	saved, undo := v.Keep()
	must(t, c.Put(laterID, "s", later))
	if _, none := closeOnExec(t, saved.all()); !none || len(saved.Kept) != 1 || len(saved.Clients) != 1 || saved.Kept[0].ID != id {
		t.Errorf("not all outlive an execve: %+v", saved)
	}
	if n := len(v.kept.byID); n != 1 { // under the mutex that Keep holds
		t.Errorf("%d descriptors are kept", n)
	}
	undo()
	if all, _ := closeOnExec(t, saved.all()); !all {
		t.Errorf("some outlive an execve: %+v", saved)
	}
	if got := list(t, c, ""); !slices.Equal(got, []uint64{id, laterID}) {
		t.Errorf("%v are listed", got)
	}
}

// A client whose vault is slow waits until there is room in the queue, and loses nothing.
func TestFullQueueHoldsTheClientUp(t *testing.T) {
	const puts = 2000
	v := newVault(t, Options{Max: puts})
	c := newClient(t, doorOf(t, v), ClientOptions{})
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	v.mu.Lock()
	var done atomic.Int64
	all := make(chan error, 1)
	go func() {
		for i := range uint64(puts) {
			if err := c.Put(NotSocket|i, "s", null); err != nil {
				all <- err
				return
			}
			done.Add(1)
		}
		all <- nil
	}()
	await(t, "a full queue", func() bool {
		events := []unix.PollFd{{Fd: int32(v.Door()), Events: unix.POLLOUT}}
		n, err := unix.Poll(events, 0)
		return err == nil && n == 0
	})
	held := done.Load()
	v.mu.Unlock()
	must(t, <-all)
	if held >= puts {
		t.Error("all were in the queue: the test shows nothing")
	}
	list(t, c, "none")
	if n := v.Counts(); n.Held != puts || n.Refused != 0 {
		t.Errorf("%+v", n)
	}
}

// What came with a message that is none is closed, and the vault goes on.
func TestMalformedRequests(t *testing.T) {
	v := newVault(t, Options{Max: 10})
	door := doorOf(t, v)
	c := newClient(t, door, ClientOptions{})
	near, far, id := newPair(t)
	put := request{op: opPut, id: id, name: "s"}
	good := put.append(nil)
	fd := descriptor.Number(near)
	for _, bad := range []struct {
		text []byte
		fds  []int
	}{
		{[]byte{0}, []int{fd}},
		{good[:requestHeader-1], []int{fd}},
		{append([]byte{opPut, 9}, good[2:]...), []int{fd}},
		{append([]byte{77}, good[1:]...), []int{fd}},
		{good, nil},
		{good, []int{fd, fd}},
		{slices.Concat(good, make([]byte, 300)), []int{fd}},
		{(&request{op: opDrop}).append(nil), []int{fd}},
		{(&request{op: opHello}).append(nil), nil},
		{(&request{op: opList, name: "a:b"}).append(nil), nil},
		{(&request{op: opList, client: 1}).append(nil), nil}, // of nobody: no answer, no refusal
	} {
		var rights []byte
		if bad.fds != nil {
			rights = unix.UnixRights(bad.fds...)
		}
		must(t, unix.Sendmsg(v.Door(), bad.text, rights, nil, 0))
	}
	if got := list(t, c, ""); len(got) != 0 {
		t.Errorf("%v are listed", got)
	}
	if n := v.Counts().Refused; n != 10 {
		t.Errorf("%d requests were refused, want 10", n)
	}
	must(t, near.Close())
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a descriptor of a bad request is still open: the peer reads %d, %v", n, err)
	}
}

// A client that reads no answers loses its socket, and the vault serves the others.
func TestClientThatDoesNotRead(t *testing.T) {
	v := newVault(t, Options{Max: 10})
	door := doorOf(t, v)
	c := newClient(t, door, ClientOptions{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fds[0])
	cookie, err := cookieOf(fds[1])
	must(t, err)
	mute := &Client{door: door, cookie: cookie}
	must(t, mute.send(&request{op: opHello}, fds[1]))
	must(t, unix.Close(fds[1]))
	for n := 0; ; n++ {
		must(t, mute.send(&request{op: opList}))
		list(t, c, "")
		v.mu.Lock()
		left := len(v.clients)
		v.mu.Unlock()
		if left == 1 {
			break
		}
		if n > 1<<20 {
			t.Fatal("the vault goes on answering")
		}
	}
	near, _, id := newPair(t)
	must(t, c.Put(id, "s", near))
	if got := list(t, c, ""); len(got) != 1 {
		t.Errorf("%v are listed", got)
	}
}

// Any message is refused or means what it says.
func FuzzMessages(f *testing.F) {
	f.Add((&request{op: opPut, tag: 1, client: 2, id: 3, name: "s"}).append(nil))
	f.Add((&answer{kind: ansPage, version: version, rest: appendEntry(nil, 7, "s")}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if r.parse(b) == nil {
			again := r.append(nil)
			if again[2], again[3] = b[2], b[3]; !slices.Equal(again, b) {
				t.Errorf("%x is read as %+v", b, r)
			}
		}
		var a answer
		if a.parse(b) != nil {
			return
		}
		for rest := a.rest; len(rest) > 0; {
			id, name, left, err := parseEntry(rest)
			if err != nil {
				return
			}
			if entry := rest[:len(rest)-len(left)]; !slices.Equal(appendEntry(nil, id, name), entry) {
				t.Fatalf("%x is read as %d, %q", entry, id, name)
			}
			rest = left
		}
	})
}

// newSockets returns that many sockets.
func newSockets(t testing.TB, n int) (files []*os.File, ids []uint64) {
	t.Helper()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		f := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { _ = f.Close() })
		id, err := ID(f)
		must(t, err)
		files, ids = append(files, f), append(ids, id)
	}
	return files, ids
}

func BenchmarkPut(b *testing.B) {
	v := newVault(b, Options{Max: 512})
	c := newClient(b, doorOf(b, v), ClientOptions{})
	files, ids := newSockets(b, 512)
	for i := 0; b.Loop(); i++ {
		must(b, c.Put(ids[i%512], "bench", files[i%512]))
	}
	list(b, c, "none") // all has been dealt with
	if v.Counts().Refused > 0 {
		b.Fatal("refused")
	}
}

func BenchmarkList2000(b *testing.B) {
	v := newVault(b, Options{Max: 2000})
	c := newClient(b, doorOf(b, v), ClientOptions{})
	files, ids := newSockets(b, 2000)
	for i, id := range ids {
		must(b, c.Put(id, "bench", files[i]))
	}
	for b.Loop() {
		kept, err := c.List(context.Background(), "bench")
		if err != nil || len(kept) != 2000 {
			b.Fatal(len(kept), err)
		}
		b.StopTimer()
		closeKept(kept)
		b.StartTimer()
	}
}
