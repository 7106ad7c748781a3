// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner is a connection of which nothing is known but its command window.
type owner struct {
	written int
	ended   []error
}

func (o *owner) Stopped() error                 { return nil }
func (o *owner) Numbers() (exp, maximum uint32) { return 70, 90 }
func (o *owner) Written()                       { o.written++ }
func (o *owner) Ended(err error)                { o.ended = append(o.ended, err) }

// pipe is a socket that takes as many bytes at a time as its list says, again and
// again; 0 is a socket that is full until somebody waits.
type pipe struct {
	takes []int
	next  int
	bytes []byte
}

func (p *pipe) Writev(iov []unix.Iovec) (int, error) {
	room := 1 << 30
	if len(p.takes) > 0 {
		room = p.takes[p.next%len(p.takes)]
		p.next++
	}
	if room == 0 {
		return 0, unix.EAGAIN
	}
	n := 0
	for _, v := range iov {
		part := unsafe.Slice(v.Base, v.Len)
		part = part[:min(len(part), room-n)]
		p.bytes = append(p.bytes, part...)
		n += len(part)
	}
	return n, nil
}

func (p *pipe) AwaitWrite(f func(uintptr) bool) (bool, error) { return f(0), nil }

// answer is a source of as many PDUs as it has parts.
type answer struct {
	parts    [][]byte
	released bool
}

func (a *answer) Next(h *pdu.BHS) (data []byte, status, last bool) {
	data, a.parts = a.parts[0], a.parts[1:]
	last = len(a.parts) == 0
	p := pdu.DataIn{DataLength: uint32(len(data)), HasStatus: last}
	p.Encode(h)
	return data, last, last
}

func (a *answer) Size() (n int) {
	for _, p := range a.parts {
		n += len(p)
	}
	return n
}

func (a *answer) Release() { a.released = true }

func newOutput(p *pipe, digests bool) (*Output, *owner) {
	o, w := new(Output), new(owner)
	o.Init(w, p, 0)
	o.SetDigests(digests, digests)
	o.StartStatSN(7)
	return o, w
}

func header(p pdu.PDU) (h pdu.BHS) {
	p.Encode(&h)
	return h
}

// Others than the reader leave what they queue to it while it gathers, and what
// must be out at once goes out.
func TestGather(t *testing.T) {
	p := new(pipe)
	o, _ := newOutput(p, false)
	ping := header(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 7})
	o.Gather()
	o.Send(ping, false)
	if o.Flush(); len(p.bytes) > 0 {
		t.Error("what was queued did not wait for the reader")
	}
	if o.FlushNow(); len(p.bytes) != pdu.BHSLen {
		t.Errorf("%d bytes are out", len(p.bytes))
	}
	o.Send(ping, false)
	if o.Flush(); len(p.bytes) != 2*pdu.BHSLen {
		t.Errorf("%d bytes are out, and nobody gathers", len(p.bytes))
	}
}

// TestShortOutput has an account without memory: little may wait, its owner hears of room whatever has
// waited, and what waited is paid for until it is sent, by whoever has the account then.
func TestShortOutput(t *testing.T) {
	process := account.New(64<<10, 2)
	process.Open("greedy").Charge(1 << 20)
	a, b := process.Open("a"), process.Open("b")
	o, w := newOutput(new(pipe), false)
	o.SetAccount(a)
	r2t := header(&pdu.R2T{})
	o.Gather()
	for n := 1; n <= shortItems+1; n++ {
		if o.Full() {
			t.Fatalf("full with %d items", n-1)
		}
		o.Send(r2t, false)
	}
	if !o.Full() {
		t.Errorf("not full with %d items and no memory", shortItems+1)
	}
	o.SetAccount(b)
	if want := int64(shortItems+1) * itemCost; a.Used() != 0 || b.Used() != want {
		t.Errorf("the accounts have %d and %d bytes, want 0 and %d", a.Used(), b.Used(), want)
	}
	if o.FlushNow(); o.Full() || w.written != 1 || b.Used() != 0 {
		t.Errorf("sent: full is %v, the owner was told %d times, %d bytes are on the account", o.Full(), w.written, b.Used())
	}
	o.Send(header(&pdu.LoginResponse{}), true)
	if o.Flush(); w.written != 1 {
		t.Error("the owner was told of a login response")
	}
}

// queue queues the same things each time: PDUs with and without data, and sources
// of several PDUs, more than a batch has room for.
func queue(pool *mem.Pool, o *Output, i int) {
	switch i % 3 {
	case 0:
		o.Send(header(&pdu.SCSIResponse{InitiatorTaskTag: uint32(i)}), true)
	case 1:
		b := pool.Get(i%5 + 1)
		for j := range b.B {
			b.B[j] = byte(i)
		}
		o.SendData(header(&pdu.NOPIn{DataLength: uint32(len(b.B)), InitiatorTaskTag: uint32(i)}), true, b)
	default:
		a := &answer{}
		for j := range i%7 + 1 {
			a.parts = append(a.parts, bytes.Repeat([]byte{byte(i + j)}, j*3+1))
		}
		o.SendSource(a)
	}
}

// Whatever the socket takes at a time, and wherever a handoff cuts the stream, the
// bytes are the same.
func TestOutputInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := new(mem.Pool)
		digests := rapid.Bool().Draw(t, "digests")
		count := rapid.IntRange(0, 150).Draw(t, "items")
		whole := new(pipe)
		plain, _ := newOutput(whole, digests)
		for i := range count {
			queue(pool, plain, i)
		}
		queue(pool, plain, count)
		plain.Flush()

		pieces := &pipe{takes: append(rapid.SliceOfN(rapid.IntRange(0, 60), 0, 8).Draw(t, "takes"), 40)}
		o, w := newOutput(pieces, digests)
		moveAt := rapid.IntRange(0, count).Draw(t, "move")
		for i := range count {
			queue(pool, o, i)
			if i%4 == 0 {
				o.Flush()
				o.Idle()
			}
			if i == moveAt {
				rest := o.Settle()
				next, _ := newOutput(pieces, digests)
				next.StartStatSN(o.StatSN())
				next.Restore(rest)
				o.Discard()
				o = next
			}
		}
		queue(pool, o, count)
		o.Finish()
		o.Flush()
		o.Idle()
		if !bytes.Equal(pieces.bytes, whole.bytes) {
			t.Fatalf("%d bytes in pieces are not the %d bytes in one", len(pieces.bytes), len(whole.bytes))
		}
		if n := pool.Used(); n > 0 {
			t.Fatalf("%d bytes are still on loan", n)
		}
		if moveAt == count && (len(w.ended) != 1 || w.ended[0] != nil) {
			t.Fatalf("the owner is told %v of the end", w.ended)
		}
	})
}

// What is dropped is released.
func TestDiscard(t *testing.T) {
	o, _ := newOutput(&pipe{takes: []int{0}}, false)
	pool, a := new(mem.Pool), &answer{parts: [][]byte{{1}, {2}}}
	o.SendSource(a)
	queue(pool, o, 1)
	o.Discard()
	o.SendData(pdu.BHS{}, false, pool.Get(3))
	if !a.released || pool.Used() > 0 {
		t.Errorf("released: %v; %d bytes are still on loan", a.released, pool.Used())
	}
}

// script is a socket's input, in pieces of the lengths that a list says, again and
// again; 0 is a socket with nothing at hand.
type script struct {
	bytes  []byte
	pieces []int
	next   int
}

func (s *script) Read(p []byte) (int, error) {
	n := len(p)
	if len(s.pieces) > 0 {
		n = s.pieces[s.next%len(s.pieces)]
		s.next++
		if n == 0 {
			return 0, unix.EAGAIN
		}
	}
	n = copy(p[:min(n, len(p))], s.bytes)
	s.bytes = s.bytes[n:]
	return n, nil
}

func (s *script) AwaitRead(f func(uintptr) bool) (bool, error) { return f(0), nil }

// seen is a handler that notes what it is given. Segments longer than direct go to
// a place of their own, those of Data-Outs to one of the handler's.
type seen struct {
	in      *Input
	pdus    []string
	direct  int
	place   []byte
	placed  bool
	freezes int // so many of the next PDUs are handled again later
}

func (s *seen) Stopped() error { return nil }

func (s *seen) Handle(h *pdu.BHS, data []byte) error {
	if s.freezes > 0 {
		s.freezes--
		return ErrFrozen
	}
	if b := s.in.Take(); b != nil {
		defer b.Release()
	}
	s.pdus = append(s.pdus, fmt.Sprintf("%x %x", h[:], data))
	return nil
}

func (s *seen) Damaged(h *pdu.BHS) error {
	s.pdus = append(s.pdus, fmt.Sprintf("%x damaged", h[:]))
	return nil
}

func (s *seen) Refused(h *pdu.BHS) error {
	s.pdus = append(s.pdus, fmt.Sprintf("%x refused", h[:]))
	return nil
}

func (s *seen) Direct(length, total int) bool { return length > s.direct || total > ChunkSize }

func (s *seen) Place(h *pdu.BHS, length int) ([]byte, int) {
	if h.Opcode() != pdu.OpDataOut {
		return nil, length + 3
	}
	s.place, s.placed = make([]byte, length), true
	return s.place, 0
}

func (s *seen) Unplace() { s.placed = false }

func newInput(pool *mem.Pool, r Reader, digests bool, direct int) *seen {
	s := &seen{in: new(Input), direct: direct}
	s.in.Init(s, r, pool, pool)
	s.in.SetDigests(digests, digests)
	s.in.SetLimit(200 << 10)
	return s
}

// run handles what there is until the end of the stream, or until stop says so
// between two reads.
func (s *seen) run(stop func() bool) error {
	for {
		for {
			ok, err := s.in.Next()
			if err != nil && !errors.Is(err, ErrFrozen) {
				return err
			}
			if !ok {
				break
			}
		}
		if stop() {
			return nil
		}
		if err := s.in.More(); err != nil {
			return err
		}
	}
}

// requests are PDUs with segments of the given lengths, and digests, one of which
// is wrong where damaged says.
func requests(lengths []int, digests bool, damaged int) (stream []byte) {
	for i, n := range lengths {
		data := bytes.Repeat([]byte{byte(i + 1)}, n)
		h := header(&pdu.NOPOut{DataLength: uint32(n), InitiatorTaskTag: uint32(i)})
		if i%2 == 1 {
			h = header(&pdu.DataOut{DataLength: uint32(n), InitiatorTaskTag: uint32(i)})
		}
		stream = append(stream, h[:]...)
		sum := make([]byte, pdu.DigestLen)
		if digests {
			pdu.Digest(0).Add(h[:]).Put(sum)
			stream = append(stream, sum...)
		}
		body := append(data, make([]byte, pdu.Padded(n)-n)...)
		stream = append(stream, body...)
		if digests && n > 0 {
			pdu.Digest(0).Add(body).Put(sum)
			if i == damaged {
				sum[2] ^= 1
			}
			stream = append(stream, sum...)
		}
	}
	return stream
}

// In whatever pieces the bytes come, wherever long segments go, and wherever a
// handoff cuts the stream, the PDUs are the same.
func TestInputInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digests := rapid.Bool().Draw(t, "digests")
		lengths := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 3, 4, 500, 20000, 70000, 150000}), 1, 6).Draw(t, "lengths")
		stream := requests(lengths, digests, rapid.IntRange(0, 8).Draw(t, "damaged"))
		pool := new(mem.Pool)
		whole := newInput(pool, &script{bytes: slices.Clone(stream)}, digests, 1<<30)
		if err := whole.run(func() bool { return false }); err != io.EOF {
			t.Fatal(err)
		}

		source := &script{bytes: slices.Clone(stream), pieces: append(rapid.SliceOfN(rapid.IntRange(0, 30000), 0, 6).Draw(t, "pieces"), 9000)}
		direct := rapid.SampledFrom([]int{0, 400, 16 << 10, 1 << 30}).Draw(t, "direct")
		pieces := newInput(pool, source, digests, direct)
		pieces.freezes = rapid.IntRange(0, 2).Draw(t, "freezes")
		reads, moveAt := 0, rapid.IntRange(0, 20).Draw(t, "move")
		if err := pieces.run(func() bool { reads++; return reads > moveAt }); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		next := newInput(pool, source, digests, direct)
		next.in.Preload(pieces.in.Bytes())
		pieces.in.Drop()
		pieces.in.Release()
		if err := next.run(func() bool { return false }); err != io.EOF {
			t.Fatal(err)
		}
		if d := cmp.Diff(whole.pdus, append(pieces.pdus, next.pdus...)); d != "" {
			t.Fatalf("PDUs in one (-) and in pieces (+): %.2000s", d)
		}
		whole.in.Release()
		next.in.Release()
		if n := pool.Used(); n > 0 || pieces.placed || next.placed {
			t.Fatalf("%d bytes are still on loan; places are kept: %v, %v", n, pieces.placed, next.placed)
		}
	})
}

// The longest PDU that RFC 7143 allows is longer, with its header, than any buffer. It moves
// all the same, before and after the other process has read what came with it.
func TestLongestSegmentMoves(t *testing.T) {
	const longest = 1<<24 - 4 // the handler asks for three bytes more
	stream := requests([]int{longest, 3}, true, -1)
	pool := new(mem.Pool)
	var got []string
	source := &script{bytes: slices.Clone(stream), pieces: []int{pdu.BHSLen + pdu.DigestLen, longest - 1}}
	var before []byte
	for _, reads := range []int{2, 0, 9, 1 << 30} {
		in := newInput(pool, source, true, 16<<10)
		in.in.SetLimit(longest)
		in.in.Preload(before)
		if err := in.run(func() bool { reads--; return reads < 0 }); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		before = bytes.Clone(in.in.Bytes())
		in.in.Drop()
		in.in.Release()
		got = append(got, in.pdus...)
	}
	whole := newInput(pool, &script{bytes: stream}, true, 1<<30-1)
	whole.in.SetLimit(longest)
	if err := whole.run(func() bool { return false }); err != io.EOF {
		t.Fatal(err)
	}
	whole.in.Release()
	if len(got) != 2 || !slices.Equal(got, whole.pdus) {
		t.Fatalf("%d PDUs, or not the same as in one process", len(got))
	}
	if n := pool.Used(); n > 0 {
		t.Fatalf("%d bytes are still on loan", n)
	}
}

// TestInputWithoutMemory has no memory beyond the reserve: long segments are passed over, whatever
// stands around them arrives whole, and after a handoff in the middle of one the rest of it
// says nothing.
func TestInputWithoutMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digests := rapid.Bool().Draw(t, "digests")
		lengths := rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 3, 4, 3000, 4097, 20001, 70002, 150003}), 1, 6).Draw(t, "lengths")
		stream := requests(lengths, digests, -1)
		whole := newInput(new(mem.Pool), &script{bytes: slices.Clone(stream)}, digests, 1<<30)
		if err := whole.run(func() bool { return false }); err != io.EOF {
			t.Fatal(err)
		}

		process := account.New(4*account.MinReserve, 2)
		process.Open("greedy").Charge(1 << 20)
		poor := process.Open("poor")
		source := &script{bytes: slices.Clone(stream), pieces: append(rapid.SliceOfN(rapid.IntRange(0, 30000), 0, 6).Draw(t, "pieces"), 9000)}
		first := newInput(new(mem.Pool).For(poor), source, digests, 16<<10)
		reads, moveAt := 0, rapid.IntRange(0, 40).Draw(t, "move")
		if err := first.run(func() bool { reads++; return reads > moveAt }); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		next := newInput(new(mem.Pool), source, digests, 1<<30)
		next.in.Preload(first.in.Bytes())
		first.in.Drop()
		first.in.Release()
		if err := next.run(func() bool { return false }); err != io.EOF {
			t.Fatal(err)
		}
		nothing := header(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag})
		says := func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("%x", nothing[:4])) }
		got := append(first.pdus, slices.DeleteFunc(next.pdus, says)...)
		if len(got) != len(whole.pdus) {
			t.Fatalf("%d PDUs of %d", len(got), len(whole.pdus))
		}
		for i, want := range whole.pdus {
			refused := want[:2*pdu.BHSLen] + " refused"
			long := lengths[i] > 2*account.MinReserve || lengths[i] > 0 && got[i] == refused && lengths[i] > 3000
			if got[i] != want && (got[i] != refused || !long) || lengths[i] > 2*account.MinReserve && i < len(first.pdus) && i%2 == 0 && got[i] != refused {
				t.Fatalf("PDU %d of %d bytes: %.200s", i, lengths[i], got[i])
			}
		}
		whole.in.Release()
		next.in.Release()
		if poor.Used() != 0 {
			t.Fatalf("%d bytes are still on the account", poor.Used())
		}
	})
}

// What can't be trusted ends the stream (RFC 7143 7.7, 7.8).
func TestFormatErrors(t *testing.T) {
	long := header(&pdu.NOPOut{DataLength: 200<<10 + 1})
	plain := header(&pdu.NOPOut{})
	wrong := append(plain[:], 1, 2, 3, 4)
	for name, c := range map[string]struct {
		bytes   []byte
		digests bool
	}{
		"a segment longer than MaxRecvDataSegmentLength": {long[:], false},
		"a header digest that does not match":            {wrong, true},
	} {
		t.Run(name, func(t *testing.T) {
			pool := new(mem.Pool)
			s := newInput(pool, &script{bytes: c.bytes}, c.digests, 1<<30)
			err := s.run(func() bool { return false })
			if !errors.As(err, new(FormatError)) || len(s.pdus) > 0 {
				t.Errorf("%v, %d PDUs", err, len(s.pdus))
			}
			s.in.Release()
		})
	}
}
