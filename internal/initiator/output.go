// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"net"
	"sync"
	"syscall"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"golang.org/x/sys/unix"
)

const (
	// Data segments up to this many bytes are copied next to their header;
	// longer ones are written from where they are.
	copyLimit = 8 << 10
	// An output queue with more copied bytes than this is being driven by the
	// target, not by commands.
	outputLimit = 32 << 20
	// The most pieces that one writev takes.
	maxPieces = 1024
)

// A batch is a run of bytes to be written at once.
type batch struct {
	buf      []byte
	segments []segment
}

// A segment is a piece of a batch: foreign memory, or buf[from:to] when data
// is nil.
type segment struct {
	data     []byte
	from, to int
}

// copied extends the batch's own bytes; f appends to them.
func (b *batch) copied(f func([]byte) []byte) {
	from := len(b.buf)
	b.buf = f(b.buf)
	if n := len(b.segments); n > 0 && b.segments[n-1].data == nil {
		b.segments[n-1].to = len(b.buf)
		return
	}
	b.segments = append(b.segments, segment{from: from, to: len(b.buf)})
}

// pieces appends the batch as slices to p.
func (b *batch) pieces(p net.Buffers) net.Buffers {
	for _, s := range b.segments {
		if s.data == nil {
			s.data = b.buf[s.from:s.to]
		}
		p = append(p, s.data)
	}
	return p
}

func (b *batch) reset() {
	clear(b.segments)
	b.buf, b.segments = b.buf[:0], b.segments[:0]
}

// An output gathers what a connection sends. Whoever finds it idle writes
// what has gathered; what the socket does not take at once is left to the
// connection's writer goroutine, so that a target that has stopped reading
// never stops the reader.
type output struct {
	conn net.Conn
	raw  syscall.RawConn // nil when the connection is not a socket
	wake chan struct{}   // capacity 1: there is work for the writer

	mu       sync.Mutex // protects all below
	filling  *batch
	number   uint64 // of the batch being filled, from 1
	written  uint64 // number of the last batch that is written completely
	busy     bool   // someone is writing
	held     bool   // the reader is at work and will flush afterwards
	leftover bool   // pieces holds what the writer is to write
	deferred []*task
	broken   error
	settled  sync.Cond // busy has become false, or leftover true

	// Owned by the goroutine that set busy.
	writing *batch
	backing net.Buffers // of pieces, kept for the next batch
	pieces  net.Buffers // what of the batch has not been written
	taken   int
	err     error
	try     func(fd uintptr) bool
}

func newOutput(c net.Conn) *output {
	o := &output{conn: c, wake: make(chan struct{}, 1), filling: new(batch), writing: new(batch), number: 1}
	o.settled.L = &o.mu
	if sc, ok := c.(syscall.Conn); ok {
		o.raw, _ = sc.SyscallConn() // nil on error: the writer does everything
	}
	o.try = func(fd uintptr) bool {
		o.taken, o.err = unix.Writev(int(fd), o.pieces[:min(len(o.pieces), maxPieces)])
		return true
	}
	return o
}

// put queues a PDU with its data and digests, and returns the number of its
// batch. data must stay as it is until that batch is written.
func (o *output) put(h *pdu.BHS, data []byte, headerDigest, dataDigest bool) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.filling
	setDataLength(h, len(data))
	inline := len(data) <= copyLimit
	b.copied(func(p []byte) []byte {
		p = append(p, h[:]...)
		if headerDigest {
			p = appendDigest(p, pdu.Digest(0).Add(h[:]), false)
		}
		if inline {
			p = append(p, data...)
		}
		return p
	})
	if !inline {
		b.segments = append(b.segments, segment{data: data})
	}
	pad := zeros[:pdu.Padded(len(data))-len(data)]
	if len(pad) == 0 && (!dataDigest || len(data) == 0) {
		return o.number
	}
	b.copied(func(p []byte) []byte {
		p = append(p, pad...)
		if dataDigest {
			p = appendDigest(p, pdu.Digest(0).Add(data).Add(pad), false)
		}
		return p
	})
	return o.number
}

// putRaw queues bytes as they are.
func (o *output) putRaw(raw []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.filling.copied(func(p []byte) []byte { return append(p, raw...) })
}

// flooded reports whether more waits to be written than commands can cause.
func (o *output) flooded() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.filling.buf) > outputLimit
}

// started returns the number of the last batch whose writing has begun.
func (o *output) started() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.number - 1
}

// current returns the number of the batch being filled.
func (o *output) current() uint64 { return o.started() + 1 }

// hold and release bracket the reader's work: in between nobody else needs to
// flush.
func (o *output) hold() {
	o.mu.Lock()
	o.held = true
	o.mu.Unlock()
}

func (o *output) release() {
	o.mu.Lock()
	o.held = false
	o.mu.Unlock()
	o.flush()
}

// flush writes what has gathered, as far as the socket takes it, unless
// another goroutine is at it or the reader is going to.
func (o *output) flush() {
	for o.take() {
		o.taken, o.err = 0, nil
		if o.raw != nil {
			if err := o.raw.Write(o.try); err != nil {
				o.err = err
			}
			if o.err == unix.EAGAIN || o.err == unix.EINTR {
				o.taken, o.err = 0, nil
			}
		}
		o.consume(o.taken)
		if len(o.pieces) > 0 && o.err == nil {
			o.mu.Lock()
			o.leftover = true
			o.settled.Broadcast()
			o.mu.Unlock()
			o.signal()
			return
		}
		o.finish(o.err)
	}
}

// take makes the gathered batch the one being written.
func (o *output) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy || o.held || o.broken != nil || len(o.filling.segments) == 0 {
		return false
	}
	o.busy = true
	o.filling, o.writing = o.writing, o.filling
	o.number++
	o.backing = o.writing.pieces(o.backing[:0])
	o.pieces = o.backing
	return true
}

// consume drops n bytes from the front of the pieces.
func (o *output) consume(n int) {
	for len(o.pieces) > 0 && n >= len(o.pieces[0]) {
		n -= len(o.pieces[0])
		o.pieces = o.pieces[1:]
	}
	if n > 0 {
		o.pieces[0] = o.pieces[0][n:]
	}
}

// finish ends the writing of a batch.
func (o *output) finish(err error) {
	o.writing.reset()
	o.mu.Lock()
	o.busy, o.broken = false, err
	o.written = o.number - 1
	wake := len(o.deferred) > 0 || err != nil
	o.settled.Broadcast()
	o.mu.Unlock()
	if wake {
		o.signal()
	}
}

// quiesce waits until no goroutine writes any more. The connection is closed
// and its writer has ended.
func (o *output) quiesce() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.busy && !o.leftover {
		o.settled.Wait()
	}
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// deferUntil keeps t for the writer when the batch that holds its data is
// still being written. It reports whether it did.
func (o *output) deferUntil(t *task, number uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if number <= o.written || o.broken != nil {
		return false
	}
	o.deferred = append(o.deferred, t)
	return true
}

// ready returns the deferred tasks whose data is written.
func (o *output) ready() []*task {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ready []*task
	keep := o.deferred[:0]
	for _, t := range o.deferred {
		if t.outBatch <= o.written {
			ready = append(ready, t)
		} else {
			keep = append(keep, t)
		}
	}
	clear(o.deferred[len(keep):])
	o.deferred = keep
	return ready
}

// writeLeftover is the writer's part: it blocks until the rest of the batch
// is written. It returns the error that ended the output.
func (o *output) writeLeftover() error {
	o.mu.Lock()
	mine := o.leftover
	o.leftover = false
	o.mu.Unlock()
	if mine {
		_, err := o.pieces.WriteTo(o.conn)
		o.finish(err)
		o.flush()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken
}
