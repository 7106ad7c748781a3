// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const (
	// Above so many queued items or bytes a reader stops reading commands and
	// the scheduler starts none for this connection until the initiator has
	// read some of what waits.
	outputItems = 1024
	outputBytes = 4 << 20
	// The same while the account that pays is short of memory.
	shortItems = 16
	shortBytes = 8 << 10
	// Data segments are rarely shorter.
	shortSegment = 8 << 10
)

// A Source makes PDUs when there is room to send them: a finished command.
type Source interface {
	// Next makes the next PDU: its header but for the sequence numbers in h, and its
	// data segment. status says that it carries status, so that StatSN goes
	// up; last, that there is no other.
	Next(h *pdu.BHS) (data []byte, status, last bool)
	// Size is how many bytes of data all its PDUs carry.
	Size() int
	// Release is called when the kernel has taken the last PDU, or never will.
	Release()
}

// An Owner is the connection that a stream belongs to.
type Owner interface {
	// Stopped says why the stream should wait for nothing more, nil if it may. It is
	// [ErrFrozen] for a while that ends.
	Stopped() error
	// Numbers returns the ExpCmdSN and MaxCmdSN for a PDU that goes out.
	Numbers() (exp, max uint32)
	// Written is told that the kernel has taken what waited, so that there is room; not of
	// login responses.
	Written()
	// Ended is told that writing has failed, or, with nil, that everything is with
	// the kernel and nothing follows; see [Output.Finish].
	Ended(err error)
}

// ErrFrozen says that the node stands still for a handoff.
var ErrFrozen = errors.New("frozen")

// item is something queued for the initiator: a PDU that is ready but for
// its sequence numbers, or a source.
type item struct {
	bhs    pdu.BHS
	status bool        // the PDU carries status: StatSN goes up
	buf    *mem.Buffer // the data segment, nil for none; released when sent
	source Source
	raw    []byte // or: PDUs or the rest of one, encoded before a freeze
}

func (i *item) size() int {
	if i.source != nil {
		return i.source.Size()
	}
	if i.buf != nil {
		return len(i.buf.B)
	}
	return len(i.raw)
}

// cost is what the item is charged with while it waits, besides its data. That of a source
// is its owner's.
func (i *item) cost() int64 {
	if i.source != nil {
		return 0
	}
	return itemCost + int64(len(i.raw))
}

// itemCost is what an item takes in a queue that has grown to twice what it holds.
const itemCost = 2 * int64(unsafe.Sizeof(item{}))

// A queue that has grown to more than this is given back when it is empty.
const keptItems = 256

func (i *item) release() {
	i.buf.Release()
	if i.source != nil {
		i.source.Release()
	}
}

// Output is the byte stream to the initiator. Anyone may queue; whoever finds
// nobody flushing becomes the flusher. The flusher never waits for the
// initiator: when the socket is full it leaves the rest to a goroutine of the
// connection that exists just for that long.
type Output struct {
	owner  Owner
	socket Socket

	headerDigest, dataDigest bool // set before full feature phase begins

	mu       ranked.Mutex // protects the fields up to the blank line
	room     sync.Cond    // signalled when the queue shrinks or the connection closes
	queue    []item
	head     int // queue[:head] is sent
	bytes    int // data bytes in queue[head:]
	flushing bool
	// The reader is at work and flushes when it has used up its input: till
	// then responses gather, those of workers too.
	gathering bool
	last      bool // nothing will be queued any more
	dead      bool
	account   *account.Account // pays for what waits

	// The flusher's own.
	statSN  uint32             // of the next PDU that carries status
	batch   *batch             // encoded but not accepted by the kernel; nil when there is nothing
	writeFn func(uintptr) bool // write, bound once
	wait    bool               // the flusher may wait for room in the socket
	err     error              // of the last write

	writer sync.WaitGroup // the goroutine that waits for room
}

// A Socket is what an Output writes to.
type Socket interface {
	// Writev writes what the socket takes now; EAGAIN when that is nothing.
	Writev(iov []unix.Iovec) (int, error)
	// AwaitWrite waits for room, or until it is woken, and calls f then.
	AwaitWrite(f func(uintptr) bool) (bool, error)
}

// Init makes an Output ready for use. rank is that of its mutex.
func (o *Output) Init(owner Owner, s Socket, rank ranked.Rank) {
	o.owner, o.socket = owner, s
	o.mu.SetRank(rank)
	o.room.L = &o.mu
	o.writeFn = o.write
}

// SetDigests says which digests the PDUs carry from now on, but for login responses.
func (o *Output) SetDigests(header, data bool) { o.headerDigest, o.dataDigest = header, data }

// SetAccount says who pays for what waits, also for what waits already.
func (o *Output) SetAccount(a *account.Account) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := o.head; i < len(o.queue); i++ {
		cost := o.queue[i].cost()
		o.account.Release(cost)
		a.Charge(cost)
	}
	o.account = a
}

// Send queues a PDU without data segment. The sequence numbers are filled in
// when it goes out; status says that it carries status.
func (o *Output) Send(h pdu.BHS, status bool) { o.SendData(h, status, nil) }

// SendData queues a PDU whose data segment is buf.B; the header's
// DataSegmentLength says the same. It takes buf over.
func (o *Output) SendData(h pdu.BHS, status bool, buf *mem.Buffer) {
	o.push(&item{bhs: h, status: status, buf: buf})
}

// SendSource queues the PDUs of a source and takes it over.
func (o *Output) SendSource(s Source) { o.push(&item{source: s}) }

func (o *Output) push(it *item) {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		it.release()
		return
	}
	if o.head > 0 && o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
		if cap(o.queue) > keptItems {
			o.queue = nil
		}
	} else if o.head >= outputItems {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
	o.account.Charge(it.cost())
	o.queue = append(o.queue, *it)
	o.bytes += it.size()
	o.mu.Unlock()
}

// Full reports whether the initiator has fallen far behind.
func (o *Output) Full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fullLocked()
}

func (o *Output) fullLocked() bool {
	n := len(o.queue) - o.head
	return n > outputItems || o.bytes > outputBytes || (n > shortItems || o.bytes > shortBytes) && o.account.Short()
}

// Throttle keeps the reader from taking commands while the queue is full.
func (o *Output) Throttle() error {
	if !o.Full() {
		return nil
	}
	o.FlushNow()
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.gathering = true }()
	for o.fullLocked() && !o.dead {
		if err := o.owner.Stopped(); err != nil {
			return err
		}
		o.room.Wait()
	}
	return nil
}

// Wake makes throttle look again.
func (o *Output) Wake() {
	o.mu.Lock()
	o.room.Broadcast()
	o.mu.Unlock()
}

// Finish says that nothing comes after what is queued.
func (o *Output) Finish() {
	o.mu.Lock()
	o.last = true
	o.mu.Unlock()
}

// Finished reports whether finish was called and everything is with the kernel.
func (o *Output) Finished() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last && !o.flushing && o.head == len(o.queue) && o.batch == nil
}

// Gather makes others leave the sending to the reader, which calls it. One
// write then carries what would have been many.
func (o *Output) Gather() {
	o.mu.Lock()
	o.gathering = true
	o.mu.Unlock()
}

// Ungather ends what gather began.
func (o *Output) Ungather() {
	o.mu.Lock()
	o.gathering = false
	o.mu.Unlock()
}

// FlushNow sends what is queued, whether or not the reader would come to that.
func (o *Output) FlushNow() {
	o.Ungather()
	o.Flush()
}

// Flush sends what is queued, as far as the socket takes it now, unless the
// reader is going to.
func (o *Output) Flush() {
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
func (o *Output) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flushing || o.gathering || o.dead || o.head == len(o.queue) && o.batch == nil {
		return false
	}
	o.flushing = true
	return true
}

// end stops being the flusher, and looks once more for what came meanwhile.
func (o *Output) end(err error) {
	o.mu.Lock()
	again := err == nil && !o.gathering && o.head < len(o.queue)
	o.flushing = false
	last := o.last
	o.room.Broadcast()
	o.mu.Unlock()
	switch {
	case again:
		o.Flush()
	case err != nil && !errors.Is(err, ErrFrozen):
		o.owner.Ended(err)
	case last && o.Finished():
		o.owner.Ended(nil)
	}
}

// drainWaiting is the flusher when the socket is full: it waits for room.
func (o *Output) drainWaiting() {
	defer o.writer.Done()
	o.wait = true
	_, err := o.drain()
	o.end(err)
}

// drain writes until nothing is left. Without o.wait it reports false when
// the socket is full.
func (o *Output) drain() (bool, error) {
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
			if done, err = o.socket.AwaitWrite(o.writeFn); err != nil {
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
func (o *Output) write(uintptr) bool {
	b := o.batch
	for b.sent < b.n {
		if o.err = o.owner.Stopped(); o.err != nil {
			return true
		}
		n, err := o.socket.Writev(b.iov[b.sent:b.n])
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
func (o *Output) batchSent() {
	b, counts := o.batch, o.batch.counts
	o.batch = nil
	o.mu.Lock()
	o.bytes -= b.bytes
	o.room.Broadcast()
	o.mu.Unlock()
	b.release()
	batches.Put(b)
	if counts {
		o.owner.Written()
	}
}

func (o *Output) popLocked() {
	o.account.Release(o.queue[o.head].cost())
	o.queue[o.head] = item{}
	o.head++
}

// Discard drops everything, after the connection has ended. It waits for the
// goroutine that may still be writing.
func (o *Output) Discard() {
	o.mu.Lock()
	o.dead = true
	o.mu.Unlock()
	o.writer.Wait()
	o.mu.Lock()
	for o.flushing {
		o.room.Wait()
	}
	queue := o.queue[o.head:]
	for i := range queue {
		o.account.Release(queue[i].cost())
	}
	o.queue, o.head = nil, 0
	b := o.batch
	o.batch = nil
	o.mu.Unlock()
	if b != nil {
		b.release()
		batches.Put(b)
	}
	for i := range queue {
		queue[i].release()
	}
}

// StartStatSN sets the StatSN of the connection's first response.
func (o *Output) StartStatSN(v uint32) {
	o.mu.Lock()
	o.statSN = v
	o.mu.Unlock()
}

// Settle turns everything that waits into bytes that can be sent as they are,
// by this process or another one. The Node is frozen: nobody flushes.
func (o *Output) Settle() []byte {
	o.mu.Lock()
	idle := o.batch == nil && o.head == len(o.queue)
	o.mu.Unlock()
	if idle {
		return nil
	}
	// Room for the data, and for headers if segments are not very short: to grow
	// it in steps would take twice as long, and initiators wait.
	all := make([]byte, 0, o.bytes+o.bytes/shortSegment*(pdu.BHSLen+2*pdu.DigestLen)+pdu.BHSLen*(len(o.queue)-o.head+1))
	_ = o.Drain(func(p []byte) error {
		all = append(all, p...)
		return nil
	})
	o.Restore(all)
	return all
}

// Drain passes what waits to f, as bytes that can be sent as they are, and lets go of it. The Node is
// frozen: nobody flushes.
func (o *Output) Drain(f func(p []byte) error) error {
	for o.batch != nil || o.encode() {
		b := o.batch
		for _, v := range b.iov[b.sent:b.n] {
			if err := f(unsafe.Slice(v.Base, v.Len)); err != nil {
				return err
			}
		}
		o.batchSent()
	}
	return nil
}

// Waiting is how many bytes of data wait.
func (o *Output) Waiting() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int64(o.bytes)
}

// LastStatSN is what StatSN will be when all that waits is encoded. The Node is frozen.
func (o *Output) LastStatSN() uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.statSN
	for i := o.head; i < len(o.queue); i++ {
		if o.queue[i].status || o.queue[i].source != nil { // a source ends with status
			n++
		}
	}
	return n
}

// Hold keeps everything from being sent until [Output.Resume].
func (o *Output) Hold() {
	o.mu.Lock()
	o.flushing = true
	o.mu.Unlock()
}

// Resume ends what Hold began. Bytes that were encoded before go first.
func (o *Output) Resume(before [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	queue := make([]item, 0, len(before)+len(o.queue)-o.head)
	for _, b := range before {
		it := item{raw: b}
		o.account.Charge(it.cost())
		queue = append(queue, it)
		o.bytes += len(b)
	}
	o.queue, o.head = append(queue, o.queue[o.head:]...), 0
	o.flushing = false
	o.room.Broadcast()
}

// Restore queues bytes that were encoded before. Nobody flushes yet.
func (o *Output) Restore(b []byte) {
	if len(b) > 0 {
		o.push(&item{raw: b})
	}
}

// StatSN is that of the next PDU that carries status. The Node is frozen.
func (o *Output) StatSN() uint32 { return o.statSN }

// Last reports whether [Output.Finish] was called.
func (o *Output) Last() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// Idle waits for the goroutine that waits for room in the socket, if there is one.
func (o *Output) Idle() { o.writer.Wait() }
