// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Bytes that one read may bring. A data segment that is longer goes past the
// buffer, straight to where it belongs.
const inputSize = 128 << 10

// defaultDataSegment is the longest data segment before, and without, a
// declaration of MaxRecvDataSegmentLength (RFC 7143 13.12).
const defaultDataSegment = 8 << 10

// A Wire is a connection to a target seen as PDUs, with digests but without
// any state of sequence numbers. It is what [Login] returns to tests that drive
// the protocol by hand. One goroutine may send while another receives.
type Wire struct {
	conn         net.Conn
	headerDigest bool
	dataDigest   bool
	maxReceive   int // bytes that a data segment from the target may have

	bhs    pdu.BHS // the header read last
	buf    []byte
	r, w   int       // what is buffered is buf[r:w]
	waiter inputWait // told about reads; nil for none
}

// An inputWait is told when reading has used up its input.
type inputWait interface {
	beforeRead() // the reader is about to wait
	afterRead()  // it has input again
}

// NewWire returns a Wire over a fresh connection: no digests, and data segments
// of up to 8 KiB, as in the login phase.
func NewWire(conn net.Conn) *Wire {
	return &Wire{conn: conn, maxReceive: defaultDataSegment, buf: make([]byte, inputSize)}
}

// Conn returns the connection below, for tests that cut or stall it.
func (w *Wire) Conn() net.Conn { return w.conn }

// Close closes the connection.
func (w *Wire) Close() error { return w.conn.Close() }

// fill makes sure that n bytes are buffered, n <= inputSize.
func (w *Wire) fill(n int) error {
	if w.w-w.r >= n {
		return nil
	}
	w.w = copy(w.buf, w.buf[w.r:w.w])
	w.r = 0
	for w.w < n {
		m, err := w.read(w.buf[w.w:])
		w.w += m
		if err != nil && w.w < n {
			if errors.Is(err, io.EOF) && w.w > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (w *Wire) read(p []byte) (int, error) {
	if w.waiter != nil {
		w.waiter.beforeRead()
		defer w.waiter.afterRead()
	}
	return w.conn.Read(p)
}

// header reads the next basic header segment into w.bhs. io.EOF means that
// the stream ended between two PDUs.
func (w *Wire) header() error {
	n := pdu.BHSLen
	if w.headerDigest {
		n += pdu.DigestLen
	}
	if err := w.fill(n); err != nil {
		return err
	}
	raw := w.buf[w.r : w.r+n]
	w.r += n
	copy(w.bhs[:], raw)
	switch {
	case w.headerDigest && !pdu.Digest(0).Add(raw[:pdu.BHSLen]).Matches(raw[pdu.BHSLen:]):
		return violation(nil, "wrong header digest %x for header %x", raw[pdu.BHSLen:], raw[:pdu.BHSLen])
	case w.bhs.TotalAHSLength() != 0:
		return violation(nil, "target sent an additional header segment, header %x", raw[:pdu.BHSLen])
	case w.bhs.DataSegmentLength() > w.maxReceive:
		return violation(nil, "data segment of %d bytes, %d were allowed, header %x", w.bhs.DataSegmentLength(), w.maxReceive, raw[:pdu.BHSLen])
	}
	return nil
}

// payload reads the data segment of the header read last into dst, which has
// its length, and checks padding and digest.
func (w *Wire) payload(dst []byte) error {
	if len(dst) == 0 {
		return nil
	}
	n := copy(dst, w.buf[w.r:w.w])
	w.r += n
	for n < len(dst) {
		m, err := w.read(dst[n:])
		n += m
		if err != nil && n < len(dst) {
			return unexpected(err)
		}
	}
	pad := pdu.Padded(len(dst)) - len(dst)
	tail := pad
	if w.dataDigest {
		tail += pdu.DigestLen
	}
	if tail == 0 {
		return nil
	}
	if err := w.fill(tail); err != nil {
		return unexpected(err)
	}
	end := w.buf[w.r : w.r+tail]
	w.r += tail
	for _, b := range end[:pad] {
		if b != 0 {
			return violation(nil, "padding is not zero after header %x", w.bhs[:])
		}
	}
	if w.dataDigest && !pdu.Digest(0).Add(dst).Add(end[:pad]).Matches(end[pad:]) {
		return violation(nil, "wrong data digest %x after header %x", end[pad:], w.bhs[:])
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Receive reads one PDU and its data segment. It checks digests, padding and
// reserved fields, and that the opcode is a target's. io.EOF means that the
// target closed the connection between two PDUs.
func (w *Wire) Receive(ctx context.Context) (pdu.PDU, []byte, error) {
	defer w.deadline(ctx, w.conn.SetReadDeadline)()
	if err := w.header(); err != nil {
		return nil, nil, orCause(ctx, err)
	}
	op := w.bhs.Opcode()
	p := pdu.New(op)
	if p == nil || op < pdu.OpNOPIn {
		return nil, nil, violation(nil, "opcode %#x is no target's", uint8(op))
	}
	p.Decode(&w.bhs)
	var again pdu.BHS
	if err := checkReserved(p, &w.bhs, &again); err != nil {
		return nil, nil, err
	}
	data := make([]byte, w.bhs.DataSegmentLength())
	if err := w.payload(data); err != nil {
		return nil, nil, orCause(ctx, err)
	}
	return p, data, nil
}

// A Fault is what to do wrong when sending. The zero Fault sends correctly.
type Fault struct {
	HeaderDigest bool // send a wrong header digest
	DataDigest   bool // send a wrong data digest
	Cut          int  // send only so many bytes; zero: all
}

// Send sends one PDU. The data segment's length in the header is that of data,
// whatever p says.
func (w *Wire) Send(ctx context.Context, p pdu.PDU, data []byte, fault Fault) error {
	raw := w.encode(nil, p, data, fault)
	if fault.Cut > 0 {
		raw = raw[:min(fault.Cut, len(raw))]
	}
	return w.SendBytes(ctx, raw)
}

// SendBytes sends raw bytes.
func (w *Wire) SendBytes(ctx context.Context, raw []byte) error {
	defer w.deadline(ctx, w.conn.SetWriteDeadline)()
	_, err := w.conn.Write(raw)
	return orCause(ctx, err)
}

// encode appends a whole PDU to b.
func (w *Wire) encode(b []byte, p pdu.PDU, data []byte, fault Fault) []byte {
	var h pdu.BHS
	p.Encode(&h)
	setDataLength(&h, len(data))
	b = append(b, h[:]...)
	if w.headerDigest {
		b = appendDigest(b, pdu.Digest(0).Add(h[:]), fault.HeaderDigest)
	}
	start := len(b)
	b = append(b, data...)
	b = append(b, zeros[:pdu.Padded(len(data))-len(data)]...)
	if w.dataDigest && len(data) > 0 {
		b = appendDigest(b, pdu.Digest(0).Add(b[start:]), fault.DataDigest)
	}
	return b
}

var zeros [4]byte

func appendDigest(b []byte, d pdu.Digest, wrong bool) []byte {
	if wrong {
		d ^= 1
	}
	b = append(b, zeros[:]...)
	d.Put(b[len(b)-pdu.DigestLen:])
	return b
}

func setDataLength(h *pdu.BHS, n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

// deadline lets ctx end what is under way on the connection. The function
// returned ends that, and leaves no deadline behind.
func (w *Wire) deadline(ctx context.Context, set func(time.Time) error) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		_ = set(time.Unix(1, 0)) // fails only on a closed connection, which ends the call too
	})
	return func() {
		if !stop() {
			<-expired
			_ = set(time.Time{})
		}
	}
}

// orCause returns why ctx ended rather than the timeout that this caused.
func orCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checkReserved holds a header against what its fields encode to: they differ
// where a reserved bit is set or a bit that is always set is missing. again is
// scratch space.
func checkReserved(p pdu.PDU, h, again *pdu.BHS) error {
	p.Encode(again)
	if *again != *h {
		return violation(p, "reserved field not zero or fixed bit missing, header %x", h[:])
	}
	return nil
}
