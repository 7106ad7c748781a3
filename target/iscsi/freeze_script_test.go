// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// still is a source of randomness that always says the same, so that what a
// client must answer to a challenge is known beforehand.
type still struct{}

func (still) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i*37 + 11)
	}
	return len(b), nil
}

// script is all that a client sends in the life of a session, known
// beforehand.
type script struct {
	name    string
	auth    Auth
	chap    bool
	mutual  bool
	digests bool // of header and data, in full feature phase
	bytes   []byte
	full    int // where in bytes full feature phase begins
}

// scripts returns a client for each way to log in.
func scripts() []*script {
	one := Auth{Users: []Account{{User: "alice", Secret: "wonderland-1865"}}}
	both := Auth{Users: one.Users, Outgoing: &Account{User: "target", Secret: "looking-glass-1871"}}
	list := []*script{
		{name: "plain"},
		{name: "digests", digests: true},
		{name: "CHAP", auth: one, chap: true},
		{name: "mutual CHAP, digests", auth: both, chap: true, mutual: true, digests: true},
	}
	for _, s := range list {
		s.login()
		s.full = len(s.bytes)
		s.session()
	}
	return list
}

// request adds a login request.
func (s *script) request(p pdu.LoginRequest, keys ...string) {
	text := strings.Join(keys, "\x00") + "\x00"
	if p.Continue {
		text = strings.TrimSuffix(text, "\x00")
	}
	p.ISID, p.InitiatorTaskTag, p.CmdSN, p.DataLength = pdu.ISID{0x80, 1}, 1, 1, uint32(len(text))
	s.bytes = append(s.bytes, encode(&p, []byte(text))...)
}

// login logs in: with CHAP if that is asked for, and with the operational
// keys in two parts, the first of which ends in the middle of a key.
func (s *script) login() {
	names := []string{"InitiatorName=" + testInitiator, "TargetName=" + testTarget}
	if s.chap {
		s.request(pdu.LoginRequest{}, append(names, "AuthMethod=CHAP,None")...)
		s.request(pdu.LoginRequest{}, "CHAP_A=7,5")
		fresh := make([]byte, 1+32) // identifier and challenge
		still{}.Read(fresh)
		proof := sha256.Sum256(slices.Concat(fresh[:1], []byte(s.auth.Users[0].Secret), fresh[1:])) // algorithm 7
		keys := []string{"CHAP_N=" + s.auth.Users[0].User, fmt.Sprintf("CHAP_R=0x%x", proof)}
		if s.mutual {
			keys = append(keys, "CHAP_I=200", "CHAP_C=0x00112233445566778899aabbccddeeff")
		}
		s.request(pdu.LoginRequest{Transit: true, NSG: pdu.LoginOperationalNegotiation}, keys...)
		names = nil
	}
	digest := "None"
	if s.digests {
		digest = "CRC32C"
	}
	s.request(pdu.LoginRequest{Continue: true, CSG: pdu.LoginOperationalNegotiation},
		append(names, "InitialR2T=No", "ImmediateData=Yes", "FirstBurst")...)
	s.request(pdu.LoginRequest{Transit: true, CSG: pdu.LoginOperationalNegotiation, NSG: pdu.FullFeaturePhase},
		"Length=2048", "MaxBurstLength=24576", "MaxOutstandingR2T=2", "MaxRecvDataSegmentLength=8192",
		"HeaderDigest="+digest, "DataDigest="+digest)
}

// add adds a PDU of full feature phase.
func (s *script) add(p pdu.PDU, data []byte) {
	b := encode(p, data)
	if !s.digests {
		s.bytes = append(s.bytes, b...)
		return
	}
	sum := func(b []byte) []byte {
		d := make([]byte, pdu.DigestLen)
		pdu.Digest(0).Add(b).Put(d)
		return d
	}
	s.bytes = append(append(s.bytes, b[:pdu.BHSLen]...), sum(b[:pdu.BHSLen])...)
	if body := b[pdu.BHSLen:]; len(body) > 0 {
		s.bytes = append(append(s.bytes, body...), sum(body)...)
	}
}

// What a script writes with its long write.
const (
	longLBA    = 1000
	longBlocks = 120
)

// longData differs from place to place, and compresses well in golden files.
func longData() []byte {
	b := make([]byte, longBlocks*512)
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], uint32(1+i/64))
	}
	return b
}

// session adds commands with data of each kind, a text request in two parts,
// requests the wrong way round, and the logout. Target transfer tags count from 1.
func (s *script) session() {
	s.add(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 2, CmdSN: 1}, nil) // unit attention
	data := longData()

	// A write of 60 KiB: 1 KiB immediate, 1 KiB unsolicited, the rest asked
	// for in three bursts, the first of which is one long segment.
	out := func(ttt, sn, from, to uint32, final bool) {
		s.add(&pdu.DataOut{Final: final, DataLength: to - from, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: ttt,
			DataSN: sn, BufferOffset: from}, data[from:to])
	}
	w := write10(10, 2, longLBA, longBlocks, 1024)
	w.Final = false
	s.add(w, data[:1024])
	out(pdu.ReservedTag, 0, 1024, 2048, true)
	out(1, 0, 2048, 26624, true)
	out(2, 0, 26624, 38912, false)
	out(2, 1, 38912, 51200, true)
	s.add(&pdu.NOPOut{Immediate: true, DataLength: 5, InitiatorTaskTag: 11, TargetTransferTag: pdu.ReservedTag, CmdSN: 3}, []byte("alive"))
	out(3, 0, 51200, 56317, false)
	out(3, 1, 56317, 61440, true)

	// Three requests the wrong way round.
	s.add(read10(13, 4, 100, 24), nil)
	s.add(write10(15, 5, 300, 1, 512), pattern(512, 0x33))
	s.add(write10(12, 3, 200, 1, 512), pattern(512, 0x77))

	s.add(&pdu.TextRequest{Continue: true, DataLength: 7, InitiatorTaskTag: 14, TargetTransferTag: pdu.ReservedTag, CmdSN: 6}, []byte("SendTar"))
	s.add(&pdu.TextRequest{Final: true, DataLength: 6, InitiatorTaskTag: 14, TargetTransferTag: 4, CmdSN: 7}, []byte("gets=\x00"))
	for i := range uint32(6) {
		s.add(read10(20+i, 8+i, 64*i, 128), nil)
	}
	s.add(read10(30, 14, 1<<30, 1), nil) // beyond the end: sense data
	s.add(&pdu.LogoutRequest{InitiatorTaskTag: 40, CmdSN: 15}, nil)
}

// part is a part of a PDU.
type part string

const (
	inBHS          part = "BHS"
	inHeaderDigest part = "header digest"
	inData         part = "data segment"
	inPadding      part = "padding"
	inDataDigest   part = "data digest"
)

// span is a part of a PDU in a stream: its bytes are those from from to before to.
type span struct {
	pdu      pdu.PDU
	part     part
	n        int // of the PDU in the stream
	begin    int // of the PDU
	from, to int
}

// dissect finds the parts of all PDUs in a stream, and checks the digests.
func dissect(t fatal, stream []byte, digests bool) []span {
	var spans []span
	for at, n := 0, 0; at < len(stream); n++ {
		if len(stream)-at < pdu.BHSLen {
			t.Fatalf("the stream ends in the header of PDU %d", n)
		}
		h := (*pdu.BHS)(stream[at:])
		p := pdu.New(h.Opcode())
		if p == nil {
			t.Fatalf("PDU %d has opcode %#x", n, uint8(h.Opcode()))
		}
		p.Decode(h)
		sums := digests && h.Opcode() != pdu.OpLoginReq && h.Opcode() != pdu.OpLoginResp
		begin, length := at, h.DataSegmentLength()
		take := func(what part, size int) {
			if size > len(stream)-at {
				t.Fatalf("the stream ends in the %s of PDU %d, %v", what, n, p)
			}
			if size > 0 {
				spans = append(spans, span{p, what, n, begin, at, at + size})
			}
			at += size
		}
		digest := func(what part) {
			from := spans[len(spans)-1].from
			if spans[len(spans)-1].part == inPadding {
				from = spans[len(spans)-2].from
			}
			covered := stream[from:at]
			take(what, pdu.DigestLen)
			if !pdu.Digest(0).Add(covered).Matches(stream[at-pdu.DigestLen : at]) {
				t.Fatalf("PDU %d, %v: wrong %s", n, p, what)
			}
		}
		take(inBHS, pdu.BHSLen)
		if sums {
			digest(inHeaderDigest)
		}
		take(inData, length)
		take(inPadding, pdu.Padded(length)-length)
		if sums && length > 0 {
			digest(inDataDigest)
		}
	}
	return spans
}

// mask blanks ExpCmdSN and MaxCmdSN in a stream of the target, and the header
// digests over them: they are as of the moment of sending, and so depend on how
// the input was cut. It checks that they never go back.
func mask(t fatal, stream []byte, spans []span) {
	var last pdu.Sequence
	for _, s := range spans {
		switch s.part {
		case inHeaderDigest:
			clear(stream[s.from:s.to])
		case inBHS:
			h := stream[s.from:s.to]
			exp, maximum := be32(h[28:]), be32(h[32:])
			if pdu.SNLess(exp, last.ExpCmdSN) || pdu.SNLess(maximum, last.MaxCmdSN) {
				t.Fatalf("%v: ExpCmdSN or MaxCmdSN went back", s.pdu)
			}
			last.ExpCmdSN, last.MaxCmdSN = exp, maximum
			clear(h[28:36])
		}
	}
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
