// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"hash/crc32"
)

// The region of a connection.
const (
	connBatch   = 0   // word: which batch is in force
	connInput   = 64  // word: which place of the input is in force
	connStart   = 128 // word: the reader executes the PDU at this stream offset
	connPDUs    = 192 // word: places of PDUs that were ever in use are up to this one
	connRecords = 256
	connInputs  = 384
	connStatic  = 512
	staticConn  = 40 // session, cookie, counters at birth
	maxStaticC  = connPlaces - connStatic - staticConn - staticHead

	// Places are how many PDUs a connection can have in its queue, besides the responses of slots.
	connPlaces = 1024
	Places     = 2048

	connBatches = (connPlaces + Places*pduLen + pageSize - 1) / pageSize * pageSize
	batchSize   = 2 * pageSize
	batchPieces = batchRecordLen

	// BatchPieces and BatchPDUs are the most that a batch has.
	BatchPieces = 192
	BatchPDUs   = 64

	batchHeaders = batchPieces + BatchPieces*extentLen
	headerSize   = 64 // of a PDU in the batch: header, its digest, and the tail of its data segment
	tailAt       = 52

	connectionSize = connBatches + 2*batchSize
)

// Birth is a connection when its region is opened.
type Birth struct {
	Cookie uint64 // SO_COOKIE: which socket it is

	// Positions of the kernel where the stream offsets are 0: see [Positions].
	Read, Written uint64

	StatSN uint32 // of the next PDU that carries status
}

// A Conn is the region of one connection. Its input belongs to the goroutine that reads, its batches to
// whoever flushes; the rest changes in transactions of the session.
type Conn struct {
	j      *Journal
	at     int64
	n      uint32
	serial uint64
	pdus   places
	used   int
	batch  Batch
	input  uint64 // number of the place in force
	seq    uint64 // number of the batch in force
}

// OpenConn takes a region for a connection of the session. static is what never changes, CBOR of the owner.
func (s *Session) OpenConn(static []byte, b *Birth, r *ConnRecord) (*Conn, error) {
	j := s.j
	if len(static) > maxStaticC {
		return nil, fmt.Errorf("journal: a connection's addresses and parameters have %d bytes, and there is room for %d", len(static), maxStaticC)
	}
	n, serial, err := j.open(ofConnection)
	if err != nil {
		return nil, err
	}
	c := &Conn{j: j, at: j.g.region(ofConnection, n), n: n, serial: serial, pdus: newPlaces(Places)}
	c.putStatic(s, static, b)
	c.NextBatch()
	c.CommitBatch(&BatchRecord{StatSN: b.StatSN})
	c.PutInput(&Input{})
	s.PutConn(c, r)
	s.Commit()
	j.store(j.g.word(ofConnection, n), serial)
	return c, nil
}

func (c *Conn) putStatic(s *Session, static []byte, b *Birth) {
	p := c.j.m[c.at+connStatic : c.at+connPlaces]
	le.PutUint64(p, uint64(s.n))
	le.PutUint64(p[8:], s.serial)
	le.PutUint64(p[16:], b.Cookie)
	le.PutUint64(p[24:], b.Read)
	le.PutUint64(p[32:], b.Written)
	n := copy(p[staticConn+staticHead:], static)
	le.PutUint32(p[staticConn:], uint32(n))
	le.PutUint32(p[staticConn+4:], staticSum(p, n))
	c.j.wrote(c.at+connStatic, staticConn+staticHead+int64(n))
}

// staticSum is the CRC of a connection's static part, of which n bytes are the owner's.
func staticSum(p []byte, n int) uint32 {
	sum := crc32.Update(0, castagnoli, p[:staticConn])
	return crc32.Update(sum, castagnoli, p[staticConn+staticHead:][:n])
}

// Close gives the region back.
func (c *Conn) Close() error { return c.j.close(ofConnection, c.n) }

// Start notes that the reader begins the I/O of the PDU at a stream offset: see [Session.Start].
func (c *Conn) Start(offset uint64) { c.j.store(c.at+connStart, offset+1) }

// PutInput notes where bytes are read to from now on, before any is read.
func (c *Conn) PutInput(r *Input) {
	c.input++
	at := c.inputAt(c.input)
	p := c.j.m[at : at+inputLen]
	le.PutUint64(p, c.input)
	r.encode(p)
	c.j.wrote(at, inputLen)
	c.j.store(c.at+connInput, c.input)
}

func (c *Conn) inputAt(seq uint64) int64 { return c.at + connInputs + int64(seq&1)*64 }

func (c *Conn) place(n uint16) int64 { return c.at + connPlaces + numbered(n, Places)*pduLen }

// TakePlace returns a free place for a PDU, from 1 on; false if there is none. The caller holds the session's mutex.
func (c *Conn) TakePlace() (n uint16, ok bool) {
	i, ok := c.pdus.take()
	if i > c.used {
		c.used = i
		c.j.store(c.at+connPDUs, uint64(i)) // as in TakeSlot
	}
	return uint16(i), ok
}

// GivePlace frees a place whose PDU is with the kernel.
func (c *Conn) GivePlace(n uint16) { c.pdus.give(int(n)) }

// PutPDU queues a PDU on one of the session's connections. The place has one version: it is free, so the one before counts
// no more.
func (s *Session) PutPDU(c *Conn, n uint16, r *PDU) {
	at := c.place(n)
	c.j.store(at, s.tag) // first, or a PDU that is half the last one and half this one would be in force
	r.encode(c.j.m[at : at+pduLen])
	c.j.wrote(at+8, pduLen-8)
}

// A Batch is the next vectored write of a connection. Headers, digests and padding are made in it, in the journal.
type Batch struct {
	c      *Conn
	at     int64
	pieces int
}

// NextBatch begins a batch, over the last but one.
func (c *Conn) NextBatch() *Batch {
	c.batch = Batch{c: c, at: c.batchAt(c.seq + 1)}
	return &c.batch
}

func (c *Conn) batchAt(seq uint64) int64 { return c.at + connBatches + int64(seq&1)*batchSize }

// Header is where the header of the i-th PDU and its digest are made.
func (b *Batch) Header(i int) *[52]byte {
	return (*[52]byte)(b.headers()[i*headerSize:])
}

// Tail is where the padding and digest of the data segment of the i-th PDU are made.
func (b *Batch) Tail(i int) *[8]byte {
	return (*[8]byte)(b.headers()[i*headerSize+tailAt:])
}

func (b *Batch) headers() []byte { return b.c.j.m[b.at+batchHeaders:][:BatchPDUs*headerSize] }

// inJournal tells a piece in the journal from one in the arena.
const inJournal = 1 << 63

func (b *Batch) add(at, length uint64) {
	p := b.c.j.m[b.at+batchPieces : b.at+batchHeaders][b.pieces*extentLen:]
	le.PutUint64(p, at)
	le.PutUint64(p[8:], length)
	b.pieces++
}

// AddHeader adds n bytes of the i-th PDU's header and digest to what is written.
func (b *Batch) AddHeader(i, n int) {
	b.add(inJournal|uint64(b.at+batchHeaders+int64(i)*headerSize), uint64(n))
}

// AddTail adds n bytes of the i-th PDU's padding and digest.
func (b *Batch) AddTail(i, n int) {
	b.add(inJournal|uint64(b.at+batchHeaders+int64(i)*headerSize+tailAt), uint64(n))
}

// AddSense adds n bytes of the segment with a slot's sense data.
func (b *Batch) AddSense(s *Session, slot uint16, n int) {
	b.add(inJournal|uint64(s.slot(slot)+slotSense), uint64(n))
}

// AddData adds a piece of the arena.
func (b *Batch) AddData(e Extent) { b.add(uint64(e.Offset+1), uint64(e.Length)) }

// CommitBatch puts the batch in force, before any of it is written to the socket. All of the one before is with the
// kernel then: its slots and places are free.
func (c *Conn) CommitBatch(r *BatchRecord) {
	c.seq++
	b := &c.batch
	p := c.j.m[b.at : b.at+batchRecordLen]
	le.PutUint64(p, c.seq)
	r.encode(p, b.pieces)
	c.j.wrote(b.at, batchSize)
	c.j.store(c.at+connBatch, c.seq)
}
