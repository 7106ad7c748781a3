// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const (
	// Above so many queued items or bytes a reader stops reading commands and
	// the scheduler starts none for this connection until the initiator has
	// read some of what waits.
	outputItems = 1024
	outputBytes = 4 << 20
)

// outItem is something queued for the initiator: a PDU that is ready but for
// its sequence numbers, or a finished task whose Data-In PDUs and status are
// made when there is room to send them.
type outItem struct {
	bhs     pdu.BHS
	advance bool        // the PDU carries status: StatSN goes up
	buf     *mem.Buffer // the data segment, nil for none; released when sent
	task    *task
	raw     []byte   // or: PDUs or the rest of one, encoded before a freeze
	sess    *session // of raw; nil during login
}

func (i *outItem) size() int {
	if i.task != nil {
		return i.task.inBytes()
	}
	if i.buf != nil {
		return len(i.buf.B)
	}
	return len(i.raw)
}

// output is the byte stream to the initiator. Anyone may queue; whoever finds
// nobody flushing becomes the flusher. The flusher never waits for the
// initiator: when the socket is full it leaves the rest to a goroutine of the
// connection that exists just for that long.
type output struct {
	c *conn

	mu       ranked.Mutex // protects the fields up to the blank line
	room     sync.Cond    // signalled when the queue shrinks or the connection closes
	queue    []outItem
	head     int // queue[:head] is sent
	bytes    int // data bytes in queue[head:]
	flushing bool
	// The reader is at work and flushes when it has used up its input: till
	// then responses gather, those of workers too.
	gathering bool
	last      bool // nothing will be queued any more
	dead      bool

	// The flusher's own.
	statSN  uint32             // of the next PDU that carries status
	batch   *batch             // encoded but not accepted by the kernel; nil when there is nothing
	writeFn func(uintptr) bool // write, bound once
	wait    bool               // the flusher may wait for room in the socket
	err     error              // of the last write

	writer sync.WaitGroup // the goroutine that waits for room
}

func (o *output) init(c *conn) {
	o.c = c
	o.mu.SetRank(rankOutput)
	o.room.L = &o.mu
	o.writeFn = o.write
}

// header encodes a PDU that is about to be queued. It is small enough to be
// inlined, and then neither the PDU nor the header is on the heap.
func header(p pdu.PDU) (h pdu.BHS) {
	p.Encode(&h)
	return h
}

// send queues a PDU without data segment. The sequence numbers are filled in
// when it goes out.
func (o *output) send(h pdu.BHS, advance bool) { o.sendData(h, advance, nil) }

// sendData queues a PDU whose data segment is buf.B; the header's
// DataSegmentLength says the same. It takes buf over.
func (o *output) sendData(h pdu.BHS, advance bool, buf *mem.Buffer) {
	o.push(&outItem{bhs: h, advance: advance, buf: buf})
}

// sendTask queues the response of a finished task and takes the task over.
func (o *output) sendTask(t *task) {
	it := outItem{task: t}
	o.push(&it)
}

func (o *output) push(it *outItem) {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		it.release(o.c.node)
		return
	}
	if o.head > 0 && o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
	} else if o.head >= outputItems {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
	o.queue = append(o.queue, *it)
	o.bytes += it.size()
	o.mu.Unlock()
}

func (i *outItem) release(n *Node) {
	i.buf.Release()
	if i.task != nil {
		i.task.release(n)
	}
}

// full reports whether the initiator has fallen far behind.
func (o *output) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fullLocked()
}

func (o *output) fullLocked() bool {
	return len(o.queue)-o.head > outputItems || o.bytes > outputBytes
}

// throttle keeps the reader from taking commands while the queue is full.
func (o *output) throttle() error {
	if !o.full() {
		return nil
	}
	o.flushNow()
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.gathering = true }()
	for o.fullLocked() && !o.dead {
		if o.c.node.stopped() {
			return errFrozen
		}
		if o.c.is(connClosed) {
			return o.c.ended
		}
		o.room.Wait()
	}
	return nil
}

// wake makes throttle look again.
func (o *output) wake() {
	o.mu.Lock()
	o.room.Broadcast()
	o.mu.Unlock()
}

// finish says that nothing comes after what is queued.
func (o *output) finish() {
	o.mu.Lock()
	o.last = true
	o.mu.Unlock()
}

// finished reports whether finish was called and everything is with the kernel.
func (o *output) finished() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last && !o.flushing && o.head == len(o.queue) && o.batch == nil
}

// gather makes others leave the sending to the reader, which calls it. One
// write then carries what would have been many.
func (o *output) gather() {
	o.mu.Lock()
	o.gathering = true
	o.mu.Unlock()
}

// ungather ends what gather began.
func (o *output) ungather() {
	o.mu.Lock()
	o.gathering = false
	o.mu.Unlock()
}

// flushNow sends what is queued, whether or not the reader would come to that.
func (o *output) flushNow() {
	o.ungather()
	o.flush()
}

// flush sends what is queued, as far as the socket takes it now, unless the
// reader is going to.
func (o *output) flush() {
	if !o.begin() {
		return
	}
	o.wait = false
	done, err := o.drain()
	if done || err != nil {
		o.end(err)
		return
	}
	o.writer.Add(1)
	go o.drainWaiting()
}

// begin makes the caller the flusher if there is something to flush and
// nobody flushes yet.
func (o *output) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flushing || o.gathering || o.dead || o.head == len(o.queue) && o.batch == nil {
		return false
	}
	o.flushing = true
	return true
}

// end stops being the flusher, and looks once more for what came meanwhile.
func (o *output) end(err error) {
	o.mu.Lock()
	again := err == nil && !o.gathering && o.head < len(o.queue)
	o.flushing = false
	last := o.last
	o.room.Broadcast()
	o.mu.Unlock()
	switch {
	case again:
		o.flush()
	case err != nil && !errors.Is(err, errFrozen):
		o.c.close(err)
	case last && o.finished():
		o.c.close(errLoggedOut)
	}
}

// drainWaiting is the flusher when the socket is full: it waits for room.
func (o *output) drainWaiting() {
	defer o.writer.Done()
	o.wait = true
	_, err := o.drain()
	o.end(err)
}

// drain writes until nothing is left. Without o.wait it reports false when
// the socket is full.
func (o *output) drain() (bool, error) {
	for {
		if o.batch == nil && !o.encode() {
			return true, nil
		}
		o.err = nil
		for done := o.write(0); !done; {
			if !o.wait {
				return false, nil
			}
			var err error
			if done, err = o.c.sock.AwaitWrite(o.writeFn); err != nil {
				return false, err
			}
			done = done || o.write(0)
		}
		if o.err != nil {
			return false, o.err
		}
		o.batchSent()
	}
}

// write writes of the batch what the socket takes; false when that is not all.
func (o *output) write(uintptr) bool {
	b := o.batch
	for b.sent < b.n {
		if o.err = o.c.stopped(); o.err != nil {
			return true
		}
		n, err := o.c.node.sys.writev(o.c.sock, b.iov[b.sent:b.n])
		if err == unix.EAGAIN {
			return false
		}
		if o.err = err; err != nil {
			return true
		}
		b.advance(n)
	}
	return true
}

// batchSent releases what a written batch held.
func (o *output) batchSent() {
	b, s := o.batch, o.batch.sess
	o.batch = nil
	o.mu.Lock()
	o.bytes -= b.bytes
	o.room.Broadcast()
	o.mu.Unlock()
	b.release(o.c.node)
	batches.Put(b)
	o.c.node.work.kick(s)
}

func (o *output) popLocked() {
	o.queue[o.head] = outItem{}
	o.head++
}

// discard drops everything, after the connection has ended. It waits for the
// goroutine that may still be writing.
func (o *output) discard() {
	o.mu.Lock()
	o.dead = true
	o.mu.Unlock()
	o.writer.Wait()
	o.mu.Lock()
	for o.flushing {
		o.room.Wait()
	}
	queue := o.queue[o.head:]
	o.queue, o.head = nil, 0
	b := o.batch
	o.batch = nil
	o.mu.Unlock()
	if b != nil {
		b.release(o.c.node)
		batches.Put(b)
	}
	for i := range queue {
		queue[i].release(o.c.node)
	}
}

// startStatSN sets the StatSN of the connection's first response.
func (o *output) startStatSN(v uint32) {
	o.mu.Lock()
	o.statSN = v
	o.mu.Unlock()
}

// settle turns everything that waits into bytes that can be sent as they are,
// by this process or another one. The Node is frozen: nobody flushes.
func (o *output) settle() []byte {
	o.mu.Lock()
	idle := o.batch == nil && o.head == len(o.queue)
	o.mu.Unlock()
	if idle {
		return nil
	}
	// Room for the data, and for headers if segments are not very short: to grow
	// it in steps would take twice as long, and initiators wait.
	all := make([]byte, 0, o.bytes+o.bytes/login.DefaultSegment*(pdu.BHSLen+2*pdu.DigestLen)+pdu.BHSLen*(len(o.queue)-o.head+1))
	for o.batch != nil || o.encode() {
		b := o.batch
		for _, v := range b.iov[b.sent:b.n] {
			all = append(all, unsafe.Slice(v.Base, v.Len)...)
		}
		o.batchSent()
	}
	o.restore(all)
	return all
}

// restore queues bytes that were encoded before. Nobody flushes yet.
func (o *output) restore(b []byte) {
	if len(b) > 0 {
		o.push(&outItem{raw: b, sess: o.c.sess})
	}
}
