// SPDX-License-Identifier: Apache-2.0

package pdu

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var opcodes = []Opcode{
	OpNOPOut, OpSCSICommand, OpTaskMgmtReq, OpLoginReq, OpTextReq, OpDataOut, OpLogoutReq, OpSNACKReq,
	OpNOPIn, OpSCSIResponse, OpTaskMgmtResp, OpLoginResp, OpTextResp, OpDataIn, OpLogoutResp, OpR2T, OpAsyncMessage, OpReject,
}

// Every 48 bytes decode, and what decodes survives encoding: the second
// generation of bytes and structs is equal to the first.
func TestRoundTrip(t *testing.T) {
	for _, op := range opcodes {
		rapid.Check(t, func(t *rapid.T) {
			var h BHS
			copy(h[:], rapid.SliceOfN(rapid.Byte(), BHSLen, BHSLen).Draw(t, "bhs"))
			h[0] = h[0]&0x40 | byte(op)
			first, second := New(op), New(op)
			first.Decode(&h)
			var out BHS
			first.Encode(&out)
			second.Decode(&out)
			if diff := cmp.Diff(first, second); diff != "" {
				t.Fatalf("%s changed in a round trip:\n%s", first, diff)
			}
			if out.Opcode() != op {
				t.Fatalf("%s encoded with opcode %#x", first, out.Opcode())
			}
		})
	}
}

func TestUnknownOpcode(t *testing.T) {
	if p := New(0x1c); p != nil {
		t.Fatalf("New(0x1c) = %v, want nil", p)
	}
}

// A write command as Linux sends it, taken apart by hand from RFC 7143 11.3.
func TestSCSICommandLayout(t *testing.T) {
	raw, err := hex.DecodeString("01a1000000001000" + "0001000000000000" + "12345678" + "00001000" + "00000007" + "00000009" +
		"2a000000002000000800000000000000")
	if err != nil {
		t.Fatal(err)
	}
	var p SCSICommand
	p.Decode((*BHS)(raw))
	want := SCSICommand{Final: true, Write: true, Attribute: Simple, DataLength: 4096, LUN: 1 << 48, InitiatorTaskTag: 0x12345678,
		ExpectedDataTransferLength: 4096, CmdSN: 7, ExpStatSN: 9, CDB: [16]byte{0: 0x2a, 4: 0, 5: 0x20, 8: 8}}
	want.CDB = [16]byte(raw[32:])
	if diff := cmp.Diff(want, p); diff != "" {
		t.Fatal(diff)
	}
	var h BHS
	p.Encode(&h)
	if !bytes.Equal(h[:], raw) {
		t.Fatalf("encoded\n%x, want\n%x", h[:], raw)
	}
	if s := p.String(); !strings.HasPrefix(s, "SCSI Command ") || !strings.Contains(s, "CmdSN=7") {
		t.Fatalf("String() = %q", s)
	}
}

func TestSNLessWraps(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		less bool
	}{{1, 2, true}, {2, 1, false}, {5, 5, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}} {
		if SNLess(c.a, c.b) != c.less {
			t.Errorf("SNLess(%d, %d) = %v", c.a, c.b, !c.less)
		}
	}
}

// The vectors of RFC 7143 appendix A.4 (32 bytes of zeros, ones, rising).
func TestDigestVectors(t *testing.T) {
	rising := make([]byte, 32)
	for i := range rising {
		rising[i] = byte(i)
	}
	for want, data := range map[string][]byte{
		"aa36918a": make([]byte, 32),
		"43aba862": bytes.Repeat([]byte{0xff}, 32),
		"4e79dd46": rising,
	} {
		var got [4]byte
		d := Digest(0).Add(data[:10]).Add(data[10:])
		d.Put(got[:])
		if hex.EncodeToString(got[:]) != want || !d.Matches(got[:]) {
			t.Errorf("digest of %x is %x, want %s", data, got, want)
		}
	}
}

func TestText(t *testing.T) {
	want := []Pair{{"InitiatorName", "iqn.2026-11.com.example:a"}, {"X#vendor", ""}, {"SessionType", "Normal"}}
	got, err := ParseText(AppendText(nil, want...))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	for _, bad := range []string{"novalue\x00", "A=b", "=b\x00", "1a=b\x00", strings.Repeat("k", 64) + "=v\x00", "k=" + strings.Repeat("v", MaxLongValueLen+1) + "\x00"} {
		if _, err := ParseText([]byte(bad)); err == nil {
			t.Errorf("ParseText(%.20q) has no error", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, op := range opcodes {
		f.Add(append([]byte{byte(op)}, make([]byte, BHSLen-1)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < BHSLen {
			return
		}
		h := (*BHS)(b)
		p := New(h.Opcode())
		if p == nil {
			return
		}
		p.Decode(h)
		if p.String() == "" || h.DataSegmentLength() > MaxDataSegment || h.TotalAHSLength() > 1020 {
			t.Fatalf("%x decodes to %v", b, p)
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2026-11.com.example:a\x00AuthMethod=CHAP,None\x00"))
	f.Add([]byte("CHAP_C=0x0102\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b)
		if err != nil {
			return
		}
		again, err := ParseText(AppendText(nil, pairs...))
		if err != nil || !cmp.Equal(pairs, again) {
			t.Fatalf("%q parsed to %v, then to %v, %v", b, pairs, again, err)
		}
	})
}
