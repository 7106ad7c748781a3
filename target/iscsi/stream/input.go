// SPDX-License-Identifier: Apache-2.0

// Package stream is the two byte streams of one iSCSI connection: PDUs out of what
// a socket has for us, and into what it takes from us, with digests (RFC 7143
// 13.1), in pieces of any length. Of the rest of the target it knows an
// [Owner] and a [Handler].
package stream

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const (
	// ChunkSize is how many bytes are asked of the socket in one read. A longer PDU
	// does not fit into the input's buffer.
	ChunkSize = 64 << 10
	// That many if there is no memory for so many: enough for any header.
	shortChunk = 4 << 10

	// The longest piece of what another process has read.
	preloadSize = 1 << 20
)

// A Handler handles the PDUs of an [Input], on the goroutine that reads.
type Handler interface {
	// Stopped says why the reader should wait for nothing more, nil if it may.
	Stopped() error
	// Handle handles one whole PDU with intact digests. data is its data segment; it
	// belongs to the input and is gone after the call. After [ErrFrozen] the
	// PDU is handled again later.
	Handle(h *pdu.BHS, data []byte) error
	// Refused handles a PDU for whose data segment there is no memory. The segment is passed
	// over as it arrives: the PDU takes effect before that.
	Refused(h *pdu.BHS) error
	// Damaged handles a PDU whose data digest does not match.
	Damaged(h *pdu.BHS) error
	// Direct reports whether a data segment, of a PDU of total bytes that has not
	// arrived in whole, is read to a place of its own instead of into the
	// input's buffer.
	Direct(length, total int) bool
	// Place returns where that place is, or else how many bytes a buffer for it should
	// have if there is memory for so many. Until [Handler.Unplace] the place stays.
	Place(h *pdu.BHS, length int) (place []byte, size int)
	// Unplace is called when the place is of no use any more, whether or not the
	// PDU has been handled.
	Unplace()
}

// A FormatError is a PDU after which the byte stream can't be trusted (RFC 7143
// 7.7).
type FormatError struct{ What string }

func (e FormatError) Error() string { return "protocol error: " + e.What }

// ErrHeaderDigest is the [FormatError] of a header that was damaged on the way.
var ErrHeaderDigest = FormatErrorf("header digest error")

// FormatErrorf returns a [FormatError].
func FormatErrorf(format string, args ...any) error { return FormatError{fmt.Sprintf(format, args...)} }

// A Reader is what an Input reads.
type Reader interface {
	// Read reads what has arrived; EAGAIN when that is nothing, 0 at the end.
	Read(p []byte) (int, error)
	// AwaitRead waits for input, or until it is woken, and calls f then.
	AwaitRead(f func(uintptr) bool) (bool, error)
}

// Input is the byte stream from the initiator. A PDU has no effect before
// all of it has arrived, so a reader can stop at any byte, and the bytes of the
// PDU that has begun are all there is to remember. It belongs to the goroutine that
// reads.
type Input struct {
	handler Handler
	reader  Reader
	pool    *mem.Pool
	spare   *mem.Pool          // of the chunk, which may be small as well
	readFn  func(uintptr) bool // read, bound once

	headerDigest, dataDigest bool
	limit                    int // our MaxRecvDataSegmentLength, bytes

	ahead    []*mem.Buffer // what another process has read, and comes before what the reader has
	chunk    *mem.Buffer   // nil while nothing is buffered
	r, w     int           // unread bytes are chunk.B[r:w]
	headerOK bool          // the header at r has been checked
	bulk     bulk
	err      error // of the last read
}

// bulk is a long data segment on its way to a place of its own; its header
// stays in the chunk at r until the segment is complete.
type bulk struct {
	length int    // of the segment; 0 when there is none
	dest   []byte // the whole segment; nil if it is passed over
	head   int    // bytes in the chunk that precede the segment: header and its digest
	got    int
	buf    *mem.Buffer // the buffer that holds dest; nil if the handler gave the place, or has taken it

	placed bool // the handler gave the place
}

// Init makes an Input ready for use. Buffers are of pool, and those that can be smaller of
// spare while that has them.
func (in *Input) Init(h Handler, r Reader, pool, spare *mem.Pool) {
	in.handler, in.reader, in.pool, in.spare = h, r, pool, spare
	in.readFn = in.read
}

// SetDigests says which digests the PDUs carry from now on.
func (in *Input) SetDigests(header, data bool) { in.headerDigest, in.dataDigest = header, data }

// SetLimit says how many bytes a data segment may have from now on.
func (in *Input) SetLimit(n int) { in.limit = n }

// SetPools says where buffers come from, from now on; see [Input.Init].
func (in *Input) SetPools(pool, spare *mem.Pool) { in.pool, in.spare = pool, spare }

// Release gives back what is buffered.
func (in *Input) Release() {
	in.chunk.Release()
	in.chunk = nil
	in.r, in.w = 0, 0
	for _, b := range in.ahead {
		b.Release()
	}
	in.ahead = nil
}

// Bytes returns what has arrived and has had no effect yet.
func (in *Input) Bytes() []byte {
	var parts [][]byte
	if in.chunk != nil {
		b := in.chunk.B[in.r:in.w]
		switch {
		case in.bulk.length == 0:
			parts = append(parts, b)
		case in.bulk.dest == nil:
			parts = append(parts, in.restToPass(b))
		default:
			// The padding and digest of the segment, which is complete then, follow
			// its header in the chunk.
			parts = append(parts, b[:in.bulk.head], in.bulk.dest[:in.bulk.got], b[in.bulk.head:])
		}
	}
	for _, b := range in.ahead {
		parts = append(parts, b.B)
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return slices.Concat(parts...)
}

// Len is how many bytes those are.
func (in *Input) Len() int {
	n := in.w - in.r + in.bulk.got
	for _, b := range in.ahead {
		n += len(b.B)
	}
	return n
}

// Preload puts bytes that another process has read in front of the stream. They take
// the way of those that the reader has: a long data segment goes to its place.
func (in *Input) Preload(b []byte) {
	for piece := range slices.Chunk(b, preloadSize) {
		p := in.pool.Get(len(piece))
		copy(p.B, piece)
		in.ahead = append(in.ahead, p)
	}
}

// readAhead moves bytes that another process has read to dest.
func (in *Input) readAhead(dest []byte) int {
	b := in.ahead[0]
	n := copy(dest, b.B)
	if b.B = b.B[n:]; len(b.B) == 0 {
		b.Release()
		in.ahead = in.ahead[1:]
	}
	return n
}

// More waits for bytes and reads them, once. At the end of the stream it returns
// io.EOF.
func (in *Input) More() error {
	for done := in.read(0); !done; {
		if err := in.handler.Stopped(); err != nil {
			return err
		}
		var err error
		if done, err = in.reader.AwaitRead(in.readFn); err != nil {
			return err
		}
		done = done || in.read(0)
	}
	err := in.err
	in.err = nil
	return err
}

// read reads what has arrived to where it belongs; false when that is nothing.
func (in *Input) read(uintptr) bool {
	direct := in.bulk.got < in.bulk.length
	var dest []byte
	switch {
	case !direct:
		dest = in.space()
	case in.bulk.dest != nil:
		dest = in.bulk.dest[in.bulk.got:]
	default: // to where it does no harm
		dest = in.chunk.B[in.w:]
		dest = dest[:min(len(dest), in.bulk.length-in.bulk.got)]
	}
	var n int
	var err error
	if len(in.ahead) > 0 {
		n = in.readAhead(dest)
	} else {
		n, err = in.reader.Read(dest)
	}
	switch {
	case err == unix.EAGAIN:
		if in.r == in.w && in.bulk.length == 0 {
			in.Release() // an idle connection holds no buffer
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

// space returns room for the next bytes behind those in the chunk.
func (in *Input) space() []byte {
	if in.chunk == nil {
		if in.chunk = in.spare.TryGet(ChunkSize); in.chunk == nil {
			in.chunk = in.pool.Get(shortChunk) // of the reserve
		}
		in.r, in.w = 0, 0
	}
	if in.r == in.w && in.bulk.length == 0 {
		in.r, in.w = 0, 0
	} else if in.r > 0 && len(in.chunk.B)-in.w < ChunkSize/4 {
		in.compact()
	}
	return in.chunk.B[in.w:]
}

func (in *Input) compact() {
	in.w = copy(in.chunk.B, in.chunk.B[in.r:in.w])
	in.r = 0
}

// Next takes one whole PDU from the input and handles it. It reports false
// when more bytes are needed first.
func (in *Input) Next() (bool, error) {
	if in.w-in.r < pdu.BHSLen {
		return false, nil
	}
	h := (*pdu.BHS)(in.chunk.B[in.r:])
	head, length := pdu.BHSLen+h.TotalAHSLength(), h.DataSegmentLength()
	if length > in.limit {
		return false, FormatErrorf("opcode %#x: data segment of %d bytes, MaxRecvDataSegmentLength is %d", uint8(h.Opcode()), length, in.limit)
	}
	if in.headerDigest {
		head += pdu.DigestLen
	}
	if in.w-in.r < head {
		return false, nil
	}
	if in.headerDigest && !in.headerOK {
		// RFC 7143 7.8: with a bad header digest the segment's length can't be
		// trusted, so the connection ends.
		b := in.chunk.B[in.r : in.r+head]
		if !pdu.Digest(0).Add(b[:head-pdu.DigestLen]).Matches(b[head-pdu.DigestLen:]) {
			return false, ErrHeaderDigest
		}
	}
	in.headerOK = true
	tail := pdu.Padded(length) - length
	if in.dataDigest && length > 0 {
		tail += pdu.DigestLen
	}
	if in.bulk.length > 0 {
		return in.finishBulk(h, head, tail)
	}
	if total := head + length + tail; in.w-in.r < total {
		if total > len(in.chunk.B) || in.handler.Direct(length, total) {
			return false, in.startBulk(h, head, length)
		}
		return false, nil
	}
	data := in.chunk.B[in.r+head : in.r+head+length]
	return true, in.consume(h, head+length+tail, data, in.chunk.B[in.r+head+length:][:tail])
}

// consume checks the data digest, handles the PDU, and moves past its n bytes
// in the chunk.
func (in *Input) consume(h *pdu.BHS, n int, data, tail []byte) error {
	good := true
	if in.dataDigest && len(data) > 0 {
		pad := len(tail) - pdu.DigestLen
		good = pdu.Digest(0).Add(data).Add(tail[:pad]).Matches(tail[pad:])
	}
	var err error
	if good {
		err = in.handler.Handle(h, data)
	} else {
		err = in.handler.Damaged(h)
	}
	if !errors.Is(err, ErrFrozen) { // else the PDU is handled again later
		in.r += n
		in.headerOK = false
	}
	return err
}

// startBulk finds the place for a long data segment and moves there what has
// arrived of it.
func (in *Input) startBulk(h *pdu.BHS, head, length int) error {
	b := &in.bulk
	place, size := in.handler.Place(h, length)
	if b.placed = place != nil; !b.placed {
		if b.buf = in.pool.TryGet(size); b.buf == nil && size > length {
			b.buf = in.pool.TryGet(length)
		}
		if b.buf == nil {
			return in.pass(h, head, length)
		}
		place = b.buf.B[:length]
	}
	b.head, b.length, b.dest = head, length, place
	arrived := in.chunk.B[in.r+head : in.w]
	b.got = copy(b.dest, arrived)
	// What has arrived of the padding and digest is read no second time.
	in.w = in.r + head + copy(arrived, arrived[b.got:])
	return nil
}

// pass has a PDU refused for whose data segment there is no memory, and passes over the segment.
func (in *Input) pass(h *pdu.BHS, head, length int) error {
	if err := in.handler.Refused(h); err != nil {
		return err
	}
	in.compact()
	b := &in.bulk
	b.head, b.length = head, length
	arrived := in.chunk.B[head:in.w]
	b.got = min(length, len(arrived))
	in.w = head + copy(arrived, arrived[b.got:])
	return nil
}

// restToPass returns what has arrived and what is still to be passed over of a PDU that has been
// refused, as a PDU that says nothing: a NOP-Out that wants no answer. Its data segment is the rest of
// the one that is passed over. b is what is in the chunk.
func (in *Input) restToPass(b []byte) []byte {
	b = slices.Clone(b)
	k := &in.bulk
	h := (*pdu.BHS)(b)
	// The padding of the rest is that of the whole, and a digest needs some data before it.
	left := min(k.length, k.length-k.got+k.got%4)
	if left == 0 {
		left = min(k.length, 4)
	}
	p := pdu.NOPOut{Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, DataLength: uint32(left)}
	ahs := h.TotalAHSLength()
	p.Encode(h)
	h[4] = byte(ahs / 4)
	if in.headerDigest {
		pdu.Digest(0).Add(b[:k.head-pdu.DigestLen]).Put(b[k.head-pdu.DigestLen:])
	}
	return slices.Concat(b[:k.head], make([]byte, left-(k.length-k.got)), b[k.head:])
}

// finishBulk handles a PDU whose data segment went to a place of its own, once
// that and the padding and digest behind it have arrived.
func (in *Input) finishBulk(h *pdu.BHS, head, tail int) (bool, error) {
	if in.bulk.got < in.bulk.length || in.w-in.r < head+tail {
		return false, nil
	}
	if in.bulk.dest == nil {
		in.r += head + tail
		in.headerOK = false
		in.Drop()
		return true, nil
	}
	err := in.consume(h, head+tail, in.bulk.dest, in.chunk.B[in.r+head:][:tail])
	if !errors.Is(err, ErrFrozen) {
		in.Drop()
	}
	return true, err
}

// Drop lets go of the place of a long data segment, unless the PDU's handler has
// taken the buffer.
func (in *Input) Drop() {
	if in.bulk.placed {
		in.handler.Unplace()
	}
	in.bulk.buf.Release()
	in.bulk = bulk{}
}

// Take gives the buffer of the data segment that is being handled to the caller,
// nil when it has none of its own.
func (in *Input) Take() *mem.Buffer {
	b := in.bulk.buf
	in.bulk.buf = nil
	return b
}
