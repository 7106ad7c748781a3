// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
)

// conn reads a connection, but for its queue, and checks it against what the kernel says.
func (w *recovery) conn(o *openConn, committed uint64) (r RecoveredConn, err error) {
	j := w.j
	c := &Conn{j: j, at: j.g.region(ofConnection, o.n), n: o.n, serial: o.serial, pdus: newPlaces(Places)}
	r.Conn, r.Static, r.Cookie = c, o.static, o.cookie
	if o.err != nil {
		return r, o.err
	}
	at, ok := j.inForce(c.at+connRecords, c.at+connRecords+64, committed)
	if !ok {
		return r, errors.New("no version of its record is in force")
	}
	r.Record.decode(j.m[at:])
	c.seq, c.input = j.load(c.at+connBatch), j.load(c.at+connInput)
	batch, input := c.batchAt(c.seq), c.inputAt(c.input)
	if c.seq == 0 || c.seq >= most || le.Uint64(j.m[batch:]) != c.seq || c.input == 0 || c.input >= most || le.Uint64(j.m[input:]) != c.input {
		return r, fmt.Errorf("batch %d and input %d are to be in force, and are not there", c.seq, c.input)
	}
	r.Batch.decode(j.m[batch:])
	r.Input.decode(j.m[input:])
	r.Started = j.load(c.at+connStart) == r.Record.Consumed+1
	return r, r.compare(w.sockets[o.cookie], o.birth)
}

// compare compares the records with the kernel's counters.
func (r *RecoveredConn) compare(now, birth Position) error {
	b := &r.Batch
	read, written := now.Read-birth.Read, now.Written-birth.Written
	end := b.Start + b.Total
	switch {
	case now.Read < birth.Read || now.Written < birth.Written || read >= most || written >= most:
		return fmt.Errorf("the kernel has counted %+v, and %+v when the connection began", now, birth)
	case max(b.Start, b.Total, b.NewHead, r.Record.OutTail, r.Record.Consumed, r.Input.Base, r.Input.BulkFrom) >= most:
		return errors.New("a number is too large")
	case b.Head > b.NewHead || b.NewHead > r.Record.OutTail:
		return fmt.Errorf("its batch has the responses from %d to %d, and %d are there", b.Head, b.NewHead, r.Record.OutTail)
	case written < b.Start || written > end:
		return fmt.Errorf("%d bytes are written, and the batch goes from %d to %d", written, b.Start, end)
	case r.Record.Consumed > read+maxAhead:
		return fmt.Errorf("%d bytes have had their effect, and %d are read", r.Record.Consumed, read)
	}
	r.Read, r.sent, r.head = read, written == end, b.Head
	if r.sent {
		r.head = b.NewHead
	}
	r.taken = written - b.Start
	return nil
}

// pdus reads the PDUs in the queue.
func (w *recovery) pdus(r *RecoveredConn, o owner, committed uint64) error {
	used := w.j.load(r.at + connPDUs)
	if used > Places {
		return fmt.Errorf("%d places for PDUs were in use, of %d", used, Places)
	}
	r.used = int(used)
	for n := uint16(1); n <= uint16(used); n++ {
		at := r.Conn.place(n)
		if tag := le.Uint64(w.j.m[at:]); tag == 0 || tag > committed {
			continue
		}
		p := RecoveredPDU{Number: n}
		if p.decode(w.j.m[at:]); p.Out < r.head {
			continue
		}
		if err := w.own(p.Data, o); err != nil {
			return err
		}
		r.Conn.pdus.claim(int(n))
		r.PDUs = append(r.PDUs, p)
	}
	return nil
}

// input checks that the bytes that have had no effect are where they are said to be. The place of a long segment may be in
// the buffer of a task. If there are no such bytes, the buffers may have another owner by now.
func (w *recovery) input(s *RecoveredSession, r *RecoveredConn, o owner) error {
	in := &r.Input
	if r.Record.Consumed >= r.Read {
		r.Input = Input{}
		return nil
	}
	room := in.Base + uint64(in.Chunk.Length) + uint64(in.Bulk.Length)
	bulkEnd := in.BulkFrom + uint64(in.Bulk.Length)
	if in.Base > r.Record.Consumed || r.Read > room || in.Bulk.Length > 0 && (in.BulkFrom < in.Base || in.BulkFrom > in.Base+uint64(in.Chunk.Length)) {
		return fmt.Errorf("the bytes from %d to %d are not in its buffers, which begin with %d and %d", r.Record.Consumed, r.Read, in.Base, in.BulkFrom)
	}
	if err := w.own(in.Chunk, o); err != nil {
		return err
	}
	if in.Bulk.Length == 0 || r.Record.Consumed >= bulkEnd {
		return nil
	}
	for i := range s.Slots {
		if s.Slots[i].Data.has(in.Bulk) {
			return nil
		}
	}
	return w.own(in.Bulk, o)
}

// readBatch reads what of the batch the kernel does not have. Its data is in what the session owns.
func (r *RecoveredConn) readBatch(s *RecoveredSession, inside []owner) error {
	if err := r.checkPart(s); err != nil || r.sent {
		return err
	}
	at := r.batchAt(r.seq)
	pieces := r.Batch.decode(r.j.m[at:])
	if pieces > BatchPieces {
		return fmt.Errorf("its batch has %d pieces, of %d", pieces, BatchPieces)
	}
	skip, total := r.taken, uint64(0)
	for i := range int64(pieces) {
		e := r.j.m[at+batchPieces+i*extentLen:]
		p, n, err := s.piece(le.Uint64(e), le.Uint64(e[8:]), at, inside)
		if err != nil {
			return fmt.Errorf("piece %d of its batch: %w", i, err)
		}
		total += n
		if skip >= n {
			skip -= n
			continue
		}
		p.skip(skip)
		skip = 0
		r.Unsent = append(r.Unsent, p)
	}
	if total != r.Batch.Total {
		return fmt.Errorf("its batch has %d bytes, and its pieces %d", r.Batch.Total, total)
	}
	return nil
}

// checkPart checks the response of which a part is encoded.
func (r *RecoveredConn) checkPart(s *RecoveredSession) error {
	if r.Batch.Part == 0 {
		return nil
	}
	for i := range s.Slots {
		if t := &s.Slots[i]; t.Number == r.Batch.Part && t.Conn == r.Conn && t.Queued && t.Out == r.Batch.NewHead && r.Batch.InSent <= t.In.Length {
			return nil
		}
	}
	return fmt.Errorf("%d bytes of slot %d are encoded, and its response is not the next", r.Batch.InSent, r.Batch.Part)
}

// piece reads a piece of the batch at an offset.
func (s *RecoveredSession) piece(at, length uint64, batch int64, inside []owner) (p Piece, n uint64, err error) {
	if length == 0 || length > 1<<24 {
		return p, 0, fmt.Errorf("it has %d bytes", length)
	}
	if at&inJournal == 0 {
		p.Data = Extent{int64(at) - 1, uint32(length)}
		for _, o := range inside {
			if o.has(p.Data) {
				return p, length, nil
			}
		}
		return p, 0, fmt.Errorf("%+v is in no buffer of the session", p.Data)
	}
	off := at &^ inJournal
	headers, sense := uint64(batch+batchHeaders), uint64(s.at+slotsAt+slotSense)
	inHeaders := off >= headers && off+length <= headers+BatchPDUs*headerSize
	inSense := off >= sense && (off-sense)/slotSize < uint64(s.used) && (off-sense)%slotSize+length <= 2+SenseLength
	if !inHeaders && !inSense {
		return p, 0, fmt.Errorf("%d bytes at %#x of the journal are not the session's", length, off)
	}
	p.Bytes = s.j.m[off:][:length]
	return p, length, nil
}

func (p *Piece) skip(n uint64) {
	if p.Bytes != nil {
		p.Bytes = p.Bytes[n:]
		return
	}
	p.Data.Offset += int64(n)
	p.Data.Length -= uint32(n)
}
