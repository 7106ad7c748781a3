// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	gocmp "cmp"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// fuzzed is a Node whose connections are fed from memory, one after the other: thousands
// of sessions a second, each the same for the same bytes.
type fuzzed struct {
	node   *Node
	target *Target
	store  storage.Store
	file   *os.File // one end of a TCP connection, which nothing is read from or written to
}

func newFuzzed(f testing.TB) *fuzzed {
	f.Helper()
	b := &fuzzed{store: storagetest.NewRAM(testDiskSize)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { client.Close() })
	if b.file, err = client.(*net.TCPConn).File(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { b.file.Close() })
	b.node, b.target = b.fresh(f)
	f.Cleanup(func() { b.node.Close() })
	return b
}

// fresh returns a Node over the same disk.
func (b *fuzzed) fresh(f testing.TB) (*Node, *Target) {
	n := NewNode(Options{Log: slog.New(slog.DiscardHandler)})
	n.sys = system{random: still{}, writev: swallow, bound: unbounded}
	t := diskOver(f, b.store, Limits{}, Auth{})
	n.SetTargets([]*Target{t}, announced, Auth{})
	return n, t
}

// swallow takes all that is written.
func swallow(_ *socket.Socket, iov []unix.Iovec) (n int, err error) {
	for _, v := range iov {
		n += int(v.Len)
	}
	return n, nil
}

// feed is what a connection reads, in two parts.
type feed struct {
	parts [2][]byte
	end   error // what comes then
}

func (r *feed) Read(p []byte) (int, error) {
	for i := range r.parts {
		if n := copy(p, r.parts[i]); n > 0 {
			r.parts[i] = r.parts[i][n:]
			return n, nil
		}
	}
	if r.end == io.EOF {
		return 0, nil
	}
	return 0, unix.EAGAIN
}

func (r *feed) AwaitRead(func(uintptr) bool) (bool, error) { return false, r.end }

// open returns a connection that is fed.
func (b *fuzzed) open(t *testing.T, r *feed) *conn {
	sock, err := socket.FromFile(b.node.seats, b.file)
	if err != nil {
		t.Fatal(err)
	}
	c := b.node.newConn(sock, 1)
	c.in.Init(&reader{c, b.node}, r, c.pool, c.pool)
	c.agree(login.Agreed{SendLimit: login.DefaultSegment, ReceiveLimit: login.DefaultSegment})
	if err := b.node.addConn(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// start is where in a script a fuzzed stream begins, at the end of a PDU.
type start struct {
	before  []byte
	after   []byte // the rest of the script
	digests bool   // in full feature phase
}

// starts are the ends of the PDUs of scripts that need no secret, the beginning among them.
func starts(f testing.TB) (list []start) {
	for _, s := range scripts() {
		if s.chap {
			continue
		}
		spans, last := dissect(f, s.bytes, s.digests), 0
		for i := range spans {
			if last == spans[i].n+1 && i > 0 {
				continue
			}
			last = spans[i].n + 1
			at := spans[i].begin
			list = append(list, start{s.bytes[:at], s.bytes[at:], s.digests})
		}
	}
	return list
}

// Fuzzed streams are kept short, so that a change to them is likely to matter: a header, how many bytes of
// the data segment follow, and these. The rest of a segment is made up, and so are padding and digests.
const (
	recordHead  = pdu.BHSLen + 1
	longestMade = 70000
)

// stream makes a stream of records. What can't be a record goes as it is.
func (p *start) stream(records []byte) (b []byte) {
	for len(records) >= recordHead {
		h := (*pdu.BHS)(records)
		n := min(int(records[pdu.BHSLen]), len(records)-recordHead)
		given := records[recordHead:][:n]
		records = records[recordHead+n:]
		at := len(b)
		b = append(b, h[:]...)
		b = append(b, make([]byte, h.TotalAHSLength())...)
		digests := p.digests && h.Opcode() != pdu.OpLoginReq
		if digests {
			b = appendDigest(b, at)
		}
		length := h.DataSegmentLength()
		if length == 0 || length > longestMade {
			continue
		}
		at = len(b)
		b = append(b, given[:min(n, length)]...)
		b = append(b, make([]byte, pdu.Padded(length)-(len(b)-at))...)
		if digests {
			b = appendDigest(b, at)
		}
	}
	return append(b, records...)
}

// appendDigest adds the digest of what is behind at.
func appendDigest(b []byte, at int) []byte {
	sum := make([]byte, pdu.DigestLen)
	pdu.Digest(0).Add(b[at:]).Put(sum)
	return append(b, sum...)
}

// records turns the first PDUs of a stream into records.
func (p *start) records(f testing.TB, most int) (b []byte) {
	const kept = 40 // bytes of a data segment: whole texts
	for i, s := range dissect(f, p.after, p.digests) {
		if s.n >= most {
			break
		}
		switch s.part {
		case inBHS:
			b = append(append(b, p.after[s.from:s.to]...), 0)
		case inData:
			n := min(s.to-s.from, kept)
			if h := p.after[s.begin:]; i > 0 && pdu.Opcode(h[0]&0x3f) == pdu.OpLoginReq {
				n = min(s.to-s.from, 255)
			}
			b[len(b)-1] = byte(n)
			b = append(b, p.after[s.from:][:n]...)
		}
	}
	return b
}

// addSeeds adds a stream from each place on.
func addSeeds(f *testing.F, list []start) {
	for i := range list {
		f.Add(uint8(i), list[i].records(f, 4))
	}
	w := encode(write10(7, 2, 0, 16, 512), nil)
	f.Add(uint8(len(list)/2), slices.Concat(w, []byte{0}, w, []byte{0}))
	f.Add(uint8(0), []byte("GET / HTTP/1.1\r\n\r\n"))
}

// FuzzStream goes on with a session, from any place of it on, with any PDUs: at worst that
// connection ends, and nothing of it is left.
func FuzzStream(f *testing.F) {
	list := starts(f)
	addSeeds(f, list)
	b := newFuzzed(f)
	f.Fuzz(func(t *testing.T, where uint8, records []byte) {
		p := &list[int(where)%len(list)]
		c := b.open(t, &feed{parts: [2][]byte{p.before, p.stream(records)}, end: io.EOF})
		b.node.run(c)
		for _, s := range b.node.sessionList() {
			<-s.gone
		}
		// A worker may be about to put back the last command.
		for deadline := time.Now().Add(10 * time.Second); b.node.MemoryUsed() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes of buffers are still on loan", b.node.MemoryUsed())
			}
		}
	})
}

// FuzzFreeze stops a session after any PDUs. What it would hand over can be written, read and
// restored, and is the same then.
func FuzzFreeze(f *testing.F) {
	list := starts(f)
	addSeeds(f, list)
	b := newFuzzed(f)
	f.Fuzz(func(t *testing.T, where uint8, records []byte) {
		p := &list[int(where)%len(list)]
		r := &feed{parts: [2][]byte{p.before, p.stream(records)}, end: errFrozen}
		c := b.open(t, r)
		defer func() {
			r.end = io.EOF
			b.node.run(c)
		}()
		if err := c.serve(); err != errFrozen {
			c.close(err)
			return
		}
		b.node.work.Quiesce(nil)
		c.out.Idle()
		state, _ := b.node.Snapshot()
		want := section(t, state)
		apart, _, rest, _ := b.node.SnapshotApart(-1, len(want)%2 == 0, func() error { return nil })
		b.moves(t, c, want, want, nil)
		if rest != nil {
			b.moves(t, c, section(t, apart), want, rest)
		}
	})
}

// quickBytes compares bytes at once: one by one, those of a large state take longer than a fuzzer waits.
var quickBytes = cmp.FilterValues(func(a, b []byte) bool { return len(a)+len(b) > 0 }, cmp.Comparer(bytes.Equal))

// moves checks that a state is as wanted when another Node has restored it, and what follows it.
func (b *fuzzed) moves(t *testing.T, c *conn, state, want []byte, rest *Rest) {
	next, target := b.fresh(t)
	defer next.Close()
	fd, err := unix.FcntlInt(uintptr(c.sock.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Restore(unsection(t, state), []*os.File{os.NewFile(uintptr(fd), "socket")}, func(string) *Target { return target }); err != nil {
		t.Fatal(err)
	}
	if rest != nil {
		var followed bytes.Buffer
		if err := rest.Write(&followed); err != nil {
			t.Fatal(err)
		}
		if err := next.Follow(&followed); err != nil || followed.Len() > 0 {
			t.Fatalf("%v, %d bytes are left", err, followed.Len())
		}
	}
	again, _ := next.Snapshot()
	if got := section(t, again); !bytes.Equal(want, got) { // rarely, and at most in what is nil and what is empty
		if d := cmp.Diff(unsection(t, want), unsection(t, got), cmpopts.EquateEmpty(), quickBytes, cmpopts.IgnoreUnexported(login.Login{})); d != "" {
			t.Fatalf("the state is another after a move, in two steps: %v (-before +after):\n%s", rest != nil, d)
		}
	}
}

// section is a state as it is in a snapshot. Commands that are not delivered yet have no order there. The
// wall times that stand beside the stamps are left out: they are by the clock of the moment.
func section(t *testing.T, state *NodeState) []byte {
	for i := range state.Connections {
		state.Connections[i].Born = 0
	}
	for i := range state.Sessions {
		s := &state.Sessions[i]
		s.Started, s.Leave = 0, min(s.Leave, 1)
		slices.SortStableFunc(state.Sessions[i].Tasks, func(a, b TaskState) int {
			return gocmp.Or(gocmp.Compare(a.Order, b.Order), gocmp.Compare(a.BHS.InitiatorTaskTag(), b.BHS.InitiatorTaskTag()))
		})
	}
	s := &handoff.Snapshot{Schema: handoff.Schema}
	err := s.Put("iscsi", state)
	if err == nil {
		var b []byte
		if b, err = s.Marshal(); err == nil {
			return b
		}
	}
	t.Fatal(err)
	return nil
}

func unsection(t *testing.T, b []byte) *NodeState {
	state := new(NodeState)
	s, err := handoff.Unmarshal(b)
	if err == nil {
		err = s.Get("iscsi", state)
	}
	if err != nil {
		t.Fatalf("what was written can't be read: %v", err)
	}
	return state
}
