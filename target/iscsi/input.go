// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const (
	chunkSize = 64 << 10 // bytes asked of the socket in one read
	// A data segment longer than this that has not arrived in whole is read
	// straight to where it belongs instead of into the chunk.
	bulkThreshold = 16 << 10
)

// input is the byte stream from the initiator. A PDU has no effect before
// all of it has arrived, so a reader can stop at any byte, and the bytes of the
// PDU that has begun are all there is to remember.
type input struct {
	chunk    *mem.Buffer // nil while nothing is buffered
	r, w     int         // unread bytes are chunk.B[r:w]
	headerOK bool        // the header at r has been checked
	bulk     bulk
	err      error // of the last read
}

// bulk is a long data segment on its way into its own buffer; its header
// stays in the chunk at r until the segment is complete.
type bulk struct {
	dest []byte // the whole segment; nil when there is none
	head int    // bytes in the chunk that precede the segment: header and its digest
	got  int
	task *task       // whose buffer dest is part of, or
	buf  *mem.Buffer // the buffer that holds dest
}

func (in *input) release() {
	in.chunk.Release()
	in.chunk = nil
	in.r, in.w = 0, 0
}

// bytes returns what has arrived and has had no effect yet.
func (in *input) bytes() []byte {
	if in.chunk == nil {
		return nil
	}
	b := in.chunk.B[in.r:in.w]
	if in.bulk.dest == nil {
		return b
	}
	// The padding and digest of the segment, which is complete then, follow
	// its header in the chunk.
	return slices.Concat(b[:in.bulk.head], in.bulk.dest[:in.bulk.got], b[in.bulk.head:])
}

// readMore waits for bytes and reads them, once.
func (c *conn) readMore() error {
	for done := c.read(0); !done; {
		if err := c.stopped(); err != nil {
			return err
		}
		var err error
		if done, err = c.sock.AwaitRead(c.readFn); err != nil {
			return err
		}
		done = done || c.read(0)
	}
	if err := c.in.err; err != nil {
		c.in.err = nil
		return c.readError(err)
	}
	return nil
}

// read reads what has arrived to where it belongs; false when that is nothing.
func (c *conn) read(uintptr) bool {
	in := &c.in
	direct := in.bulk.dest != nil && in.bulk.got < len(in.bulk.dest)
	var dest []byte
	if direct {
		dest = in.bulk.dest[in.bulk.got:]
	} else {
		dest = c.chunkSpace()
	}
	n, err := c.sock.Read(dest)
	switch {
	case err == unix.EAGAIN:
		if in.r == in.w && in.bulk.dest == nil {
			in.release() // an idle connection holds no buffer
		}
		return false
	case err != nil:
		in.err = err
	case n == 0:
		in.err = io.EOF
	case direct:
		in.bulk.got += n
	default:
		in.w += n
	}
	return true
}

// chunkSpace returns room for the next bytes behind those in the chunk.
func (c *conn) chunkSpace() []byte {
	in := &c.in
	if in.chunk == nil {
		in.chunk = c.node.pool.Get(chunkSize)
		in.r, in.w = 0, 0
	}
	if in.r == in.w && in.bulk.dest == nil {
		in.r, in.w = 0, 0
	} else if in.r > 0 && len(in.chunk.B)-in.w < chunkSize/4 {
		in.w = copy(in.chunk.B, in.chunk.B[in.r:in.w])
		in.r = 0
	}
	return in.chunk.B[in.w:]
}

// nextPDU takes one whole PDU from the input and handles it. It reports false
// when more bytes are needed first.
func (c *conn) nextPDU() (bool, error) {
	in := &c.in
	if in.w-in.r < pdu.BHSLen {
		return false, nil
	}
	h := (*pdu.BHS)(in.chunk.B[in.r:])
	head, length := pdu.BHSLen+h.TotalAHSLength(), h.DataSegmentLength()
	if length > c.receiveLimit {
		return false, protocolErrorf("opcode %#x: data segment of %d bytes, MaxRecvDataSegmentLength is %d", uint8(h.Opcode()), length, c.receiveLimit)
	}
	if c.headerDigest {
		head += pdu.DigestLen
	}
	if in.w-in.r < head {
		return false, nil
	}
	if c.headerDigest && !in.headerOK {
		// RFC 7143 7.8: with a bad header digest the segment's length can't be
		// trusted, so the connection ends.
		b := in.chunk.B[in.r : in.r+head]
		if !pdu.Digest(0).Add(b[:head-pdu.DigestLen]).Matches(b[head-pdu.DigestLen:]) {
			return false, protocolErrorf("header digest error")
		}
	}
	in.headerOK = true
	tail := pdu.Padded(length) - length
	if c.dataDigest && length > 0 {
		tail += pdu.DigestLen
	}
	if in.bulk.dest != nil {
		return c.finishBulk(h, head, tail)
	}
	if in.w-in.r < head+length+tail {
		if c.node.opt.FastPaths.direct(length, head+length+tail) {
			c.startBulk(h, head, length)
		}
		return false, nil
	}
	data := in.chunk.B[in.r+head : in.r+head+length]
	return true, c.consume(h, head+length+tail, data, in.chunk.B[in.r+head+length:][:tail])
}

// consume checks the data digest, handles the PDU, and moves past its n bytes
// in the chunk.
func (c *conn) consume(h *pdu.BHS, n int, data, tail []byte) error {
	in := &c.in
	good := true
	if c.dataDigest && len(data) > 0 {
		pad := len(tail) - pdu.DigestLen
		good = pdu.Digest(0).Add(data).Add(tail[:pad]).Matches(tail[pad:])
	}
	var err error
	if good {
		err = c.dispatch(h, data)
	} else {
		err = c.dataDigestError(h)
	}
	if !errors.Is(err, errFrozen) { // else the PDU is handled again later
		in.r += n
		in.headerOK = false
	}
	return err
}

// startBulk finds the place for a long data segment and moves there what has
// arrived of it.
func (c *conn) startBulk(h *pdu.BHS, head, length int) {
	in := &c.in
	b := &in.bulk
	b.head = head
	if h.Opcode() == pdu.OpDataOut && c.sess != nil && c.node.opt.FastPaths.inPlace() {
		b.task, b.dest = c.sess.reserveDataOut(c, h, length)
	}
	if b.dest == nil {
		size := length
		if h.Opcode() == pdu.OpSCSICommand {
			size = c.immediateBufferSize(h, length)
		}
		b.buf = c.node.pool.Get(size)
		b.dest = b.buf.B[:length]
	}
	arrived := in.chunk.B[in.r+head : in.w]
	b.got = copy(b.dest, arrived)
	// What has arrived of the padding and digest is read no second time.
	in.w = in.r + head + copy(arrived, arrived[b.got:])
}

// finishBulk handles a PDU whose data segment went into its own buffer, once
// that and the padding and digest behind it have arrived.
func (c *conn) finishBulk(h *pdu.BHS, head, tail int) (bool, error) {
	in := &c.in
	if in.bulk.got < len(in.bulk.dest) || in.w-in.r < head+tail {
		return false, nil
	}
	err := c.consume(h, head+tail, in.bulk.dest, in.chunk.B[in.r+head:][:tail])
	c.dropBulk()
	return true, err
}

// dropBulk lets go of the bulk buffer, unless the PDU's handler has taken it.
func (c *conn) dropBulk() {
	b := &c.in.bulk
	if b.task != nil {
		c.sess.unreserveDataOut(b.task)
	}
	b.buf.Release()
	*b = bulk{}
}

// takeBulk gives the buffer of the data segment now being handled to the
// caller, nil when the segment is in the chunk or is to be copied.
func (c *conn) takeBulk() *mem.Buffer {
	if !c.node.opt.FastPaths.inPlace() {
		return nil
	}
	b := c.in.bulk.buf
	c.in.bulk.buf = nil
	return b
}
