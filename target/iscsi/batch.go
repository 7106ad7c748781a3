// SPDX-License-Identifier: Apache-2.0

package iscsi

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
	tasks   [batchPDUs]*task       // likewise
	nbufs   int
	ntasks  int
	bytes   int      // data bytes of the items that the batch completes
	sess    *session // whose tasks it completes, nil for none
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

func (b *batch) release(n *Node) {
	for i := range b.nbufs {
		b.bufs[i].Release()
		b.bufs[i] = nil
	}
	for i := range b.ntasks {
		b.tasks[i].release(n)
		b.tasks[i] = nil
	}
	clear(b.iov[:b.n])
	b.n, b.sent, b.pdus, b.nbufs, b.ntasks, b.bytes, b.sess = 0, 0, 0, 0, 0, 0, nil
}

// encode fills a batch from the queue; false when there was nothing, or the
// reader gathers more.
func (o *output) encode() bool {
	var b *batch
	for b == nil || b.pdus < batchPDUs {
		o.mu.Lock()
		if o.gathering || o.head == len(o.queue) {
			o.mu.Unlock()
			break
		}
		it := &o.queue[o.head]
		if it.task == nil {
			item := *it
			o.popLocked()
			o.mu.Unlock()
			b = ensureBatch(b)
			o.encodePDU(b, &item)
			continue
		}
		t := it.task
		o.mu.Unlock()
		b = ensureBatch(b)
		if o.encodeTask(b, t) {
			b.bytes += t.inBytes()
			b.sess = t.sess
			b.tasks[b.ntasks] = t
			b.ntasks++
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
func (o *output) encodePDU(b *batch, it *outItem) {
	if it.raw != nil {
		b.bytes += len(it.raw)
		b.sess = it.sess
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
	o.stamp(&it.bhs, it.advance)
	o.add(b, &it.bhs, data)
}

// stamp fills in the sequence numbers, which are at the same place in every
// PDU of a target. A login response has its ExpCmdSN and MaxCmdSN already.
func (o *output) stamp(h *pdu.BHS, advance bool) {
	if h.Opcode() == pdu.OpLoginResp {
		h.PutStatSN(o.statSN)
	} else {
		q := pdu.Sequence{StatSN: o.statSN}
		q.ExpCmdSN, q.MaxCmdSN = o.c.sess.window.Numbers()
		h.PutSequence(q)
	}
	if advance {
		o.statSN++
	}
}

// add adds a PDU to the batch, with padding and the digests agreed on. Login
// responses have none (RFC 7143 6.3).
func (o *output) add(b *batch, bhs *pdu.BHS, data []byte) {
	login := bhs.Opcode() == pdu.OpLoginResp
	h := b.headers[b.pdus][:pdu.BHSLen]
	copy(h, bhs[:])
	if !login && o.c.headerDigest {
		d := pdu.Digest(0).Add(h)
		h = h[:pdu.BHSLen+pdu.DigestLen]
		d.Put(h[pdu.BHSLen:])
	}
	b.addIOV(h)
	if len(data) > 0 {
		b.addIOV(data)
		tail := b.tails[b.pdus][:pdu.Padded(len(data))-len(data)]
		clear(tail)
		if !login && o.c.dataDigest {
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

// encodeTask adds PDUs of a finished task until it is all sent (true) or the
// batch is full (false).
func (o *output) encodeTask(b *batch, t *task) bool {
	for b.pdus < batchPDUs {
		if t.inSent < t.inBytes() {
			if o.encodeDataIn(b, t) {
				return true
			}
			continue
		}
		o.encodeResponse(b, t)
		return true
	}
	return false
}

// encodeDataIn adds the task's next Data-In PDU. It reports true when that
// carries the status too (RFC 7143 11.7.3: only for status GOOD here).
func (o *output) encodeDataIn(b *batch, t *task) bool {
	c, total := o.c, t.inBytes()
	maxBurst := int(c.sess.params.MaxBurstLength)
	burstEnd := min((t.inSent/maxBurst+1)*maxBurst, total)
	n := min(burstEnd-t.inSent, c.sendLimit)
	p := pdu.DataIn{
		Final:             t.inSent+n == burstEnd,
		DataLength:        uint32(n),
		InitiatorTaskTag:  t.req.InitiatorTaskTag,
		TargetTransferTag: pdu.ReservedTag,
		DataSN:            t.dataSN,
		BufferOffset:      uint32(t.inSent),
	}
	if t.inSent+n == total && t.goodStatus() {
		p.HasStatus, p.Status = true, uint8(t.cmd.Status)
		p.Overflow, p.Underflow, p.ResidualCount = t.residual()
	}
	data := t.cmd.In.B[t.inSent : t.inSent+n]
	t.inSent += n
	t.dataSN++
	var h pdu.BHS
	p.Encode(&h)
	o.stamp(&h, p.HasStatus)
	if !p.HasStatus {
		h.PutStatSN(0) // reserved (RFC 7143 11.7.4)
	}
	o.add(b, &h, data)
	return p.HasStatus
}

// encodeResponse adds the task's SCSI Response, with sense data if there is any.
func (o *output) encodeResponse(b *batch, t *task) {
	p := pdu.SCSIResponse{
		Response: pdu.CommandCompleted, Status: uint8(t.cmd.Status),
		InitiatorTaskTag: t.req.InitiatorTaskTag,
		ExpDataSN:        t.dataSN + t.r2tSN,
	}
	p.Overflow, p.Underflow, p.ResidualCount = t.residual()
	var data []byte
	if len(t.cmd.Sense) > 0 {
		// RFC 7143 11.4.7: SenseLength in two bytes, then the sense data.
		data = append(t.senseSegment[:0], byte(len(t.cmd.Sense)>>8), byte(len(t.cmd.Sense)))
		data = append(data, t.cmd.Sense...)
		p.DataLength = uint32(len(data))
	}
	var h pdu.BHS
	p.Encode(&h)
	o.stamp(&h, true)
	o.add(b, &h, data)
}
