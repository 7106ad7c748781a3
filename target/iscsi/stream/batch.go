// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const (
	batchPDUs = 64            // PDUs in one vectored write
	batchIOV  = 3 * batchPDUs // header, data, tail of each
)

// batch is one vectored write under way.
type batch struct {
	iov     [batchIOV]unix.Iovec
	n, sent int // iov[sent:n] is still to be written
	headers [batchPDUs][pdu.BHSLen + pdu.DigestLen]byte
	tails   [batchPDUs][3 + pdu.DigestLen]byte
	pdus    int
	bufs    [batchPDUs]*mem.Buffer // released when the batch is written
	sources [batchPDUs]Source      // likewise
	nbufs   int
	nsrcs   int
	bytes   int  // data bytes of the items that the batch completes
	counts  bool // it has something that a full feature phase sends: see [Owner.Written]
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// advance notes that the kernel took n bytes.
func (b *batch) advance(n int) {
	for n > 0 {
		v := &b.iov[b.sent]
		if k := int(v.Len); n >= k {
			n -= k
			b.sent++
			continue
		}
		v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
		v.Len -= uint64(n)
		return
	}
}

func (b *batch) release() {
	for i := range b.nbufs {
		b.bufs[i].Release()
		b.bufs[i] = nil
	}
	for i := range b.nsrcs {
		b.sources[i].Release()
		b.sources[i] = nil
	}
	clear(b.iov[:b.n])
	b.n, b.sent, b.pdus, b.nbufs, b.nsrcs, b.bytes, b.counts = 0, 0, 0, 0, 0, 0, false
}

// encode fills a batch from the queue; false when there was nothing, or the
// reader gathers more.
func (o *Output) encode() bool {
	var b *batch
	for b == nil || b.pdus < batchPDUs {
		o.mu.Lock()
		if o.gathering || o.head == len(o.queue) {
			o.mu.Unlock()
			break
		}
		it := &o.queue[o.head]
		if it.source == nil {
			ready := *it
			o.popLocked()
			o.mu.Unlock()
			b = ensureBatch(b)
			o.encodePDU(b, &ready)
			continue
		}
		source := it.source
		o.mu.Unlock()
		b = ensureBatch(b)
		if o.encodeSource(b, source) {
			b.bytes += source.Size()
			b.counts = true
			b.sources[b.nsrcs] = source
			b.nsrcs++
			o.mu.Lock()
			o.popLocked()
			o.mu.Unlock()
		}
	}
	o.batch = b
	return b != nil
}

func ensureBatch(b *batch) *batch {
	if b == nil {
		b = batches.Get().(*batch)
	}
	return b
}

// encodePDU adds a PDU that is ready.
func (o *Output) encodePDU(b *batch, it *item) {
	if it.raw != nil {
		b.bytes += len(it.raw)
		b.counts = true
		b.addIOV(it.raw)
		b.pdus++
		return
	}
	var data []byte
	if it.buf != nil {
		data = it.buf.B
		b.bufs[b.nbufs] = it.buf
		b.nbufs++
		b.bytes += len(data)
	}
	h := b.header()
	*h = it.bhs
	b.counts = b.counts || h.Opcode() != pdu.OpLoginResp
	o.stamp(h, it.status)
	o.add(b, h, data)
}

// stamp fills in the sequence numbers, which are at the same place in every
// PDU of a target. A login response has its ExpCmdSN and MaxCmdSN already. In a
// Data-In without status StatSN is reserved (RFC 7143 11.7.4).
func (o *Output) stamp(h *pdu.BHS, status bool) {
	switch h.Opcode() {
	case pdu.OpLoginResp:
		h.PutStatSN(o.statSN)
	default:
		q := pdu.Sequence{StatSN: o.statSN}
		q.ExpCmdSN, q.MaxCmdSN = o.owner.Numbers()
		if h.Opcode() == pdu.OpDataIn && !status {
			q.StatSN = 0
		}
		h.PutSequence(q)
	}
	if status {
		o.statSN++
	}
}

// header is where the header of the next PDU goes.
func (b *batch) header() *pdu.BHS { return (*pdu.BHS)(b.headers[b.pdus][:]) }

// add adds the PDU of the batch's next header, with padding and the digests agreed
// on. Login responses have none (RFC 7143 6.3).
func (o *Output) add(b *batch, bhs *pdu.BHS, data []byte) {
	login := bhs.Opcode() == pdu.OpLoginResp
	h := b.headers[b.pdus][:pdu.BHSLen]
	if !login && o.headerDigest {
		d := pdu.Digest(0).Add(h)
		h = h[:pdu.BHSLen+pdu.DigestLen]
		d.Put(h[pdu.BHSLen:])
	}
	b.addIOV(h)
	if len(data) > 0 {
		b.addIOV(data)
		tail := b.tails[b.pdus][:pdu.Padded(len(data))-len(data)]
		clear(tail)
		if !login && o.dataDigest {
			d, n := pdu.Digest(0).Add(data).Add(tail), len(tail)
			tail = tail[:n+pdu.DigestLen]
			d.Put(tail[n:])
		}
		if len(tail) > 0 {
			b.addIOV(tail)
		}
	}
	b.pdus++
}

func (b *batch) addIOV(p []byte) {
	b.iov[b.n] = unix.Iovec{Base: &p[0], Len: uint64(len(p))}
	b.n++
}

// encodeSource adds PDUs of a source until it has no more (true) or the batch is
// full (false).
func (o *Output) encodeSource(b *batch, source Source) bool {
	for b.pdus < batchPDUs {
		h := b.header()
		data, status, last := source.Next(h)
		o.stamp(h, status)
		o.add(b, h, data)
		if last {
			return true
		}
	}
	return false
}
