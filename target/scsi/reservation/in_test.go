// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unhex returns the bytes that s spells, spaces aside.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantData fails the test unless r is GOOD with that data.
func wantData(t testing.TB, r Result, want []byte) {
	t.Helper()
	good(t, r)
	if !bytes.Equal(r.Data, want) {
		t.Fatalf("data\n% x, want\n% x", r.Data, want)
	}
}

func TestReadKeys(t *testing.T) {
	l := newLocal(t, Options{})
	wantData(t, l.In(nexusC, inCDB(actionReadKeys, 0xffff)), unhex(t, "00000000 00000000"))
	register(t, l, nexusA, 0x0102030405060708)
	register(t, l, nexusB, 0xf1f2f3f4f5f6f7f8)
	want := unhex(t, "00000002 00000010 0102030405060708 f1f2f3f4f5f6f7f8")
	wantData(t, l.In(nexusC, inCDB(actionReadKeys, 0xffff)), want)
	for n := range want { // ADDITIONAL LENGTH does not follow the cut
		wantData(t, l.In(nexusC, inCDB(actionReadKeys, uint16(n))), want[:n])
	}
}

func TestReadReservation(t *testing.T) {
	for _, typ := range allTypes {
		t.Run(typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 0x0102030405060708)
			wantData(t, l.In(nexusC, inCDB(actionReadReservation, 0xffff)), unhex(t, "00000001 00000000"))
			reserve(t, l, nexusA, 0x0102030405060708, typ)
			want := unhex(t, "00000001 00000010 0102030405060708 00000000 00 00 0000")
			if typ.allRegistrants() {
				copy(want[8:16], make([]byte, 8))
			}
			want[21] = byte(typ)
			wantData(t, l.In(nexusC, inCDB(actionReadReservation, 0xffff)), want)
			wantData(t, l.In(nexusC, inCDB(actionReadReservation, 10)), want[:10])
		})
	}
}

func TestReportCapabilities(t *testing.T) {
	l := newLocal(t, Options{})
	wantData(t, l.In(nexusA, inCDB(actionReportCapabilities, 0xffff)), unhex(t, "0008 1c 90 ea01 0000"))
	l = newLocal(t, Options{File: t.TempDir() + "/lun"})
	wantData(t, l.In(nexusA, inCDB(actionReportCapabilities, 0xffff)), unhex(t, "0008 1d 90 ea01 0000"))
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)))
	wantData(t, l.In(nexusA, inCDB(actionReportCapabilities, 0xffff)), unhex(t, "0008 1d 91 ea01 0000"))
	good(t, out(l, nexusA, actionRegister, 0, basicList(1, 1, 0)))
	wantData(t, l.In(nexusA, inCDB(actionReportCapabilities, 4)), unhex(t, "0008 1d 90"))
}

func TestReadFullStatus(t *testing.T) {
	for _, typ := range allTypes {
		t.Run(typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 0x11)
			register(t, l, nexusA2, 0x22)
			reserve(t, l, nexusA2, 0x22, typ)
			got := l.In(nexusC, inCDB(actionReadFullStatus, 0xffff))
			good(t, got)
			id := unhex(t, "45 00 002c") // 25 bytes of name, 17 of ISID, NUL, a byte of padding
			id = append(id, "iqn.2024-01.org.example:a,i,0x400000010000\x00"...)
			id = append(id, 0)
			held, first := []byte{1, byte(typ)}, []byte{0, 0}
			if typ.allRegistrants() {
				first = held
			}
			var want []byte
			for i, flags := range [][]byte{first, held} {
				want = binary.BigEndian.AppendUint64(want, uint64(0x11*(i+1)))
				want = append(want, 0, 0, 0, 0, flags[0], flags[1], 0, 0, 0, 0, 0, byte(i+1), 0, 0, 0, byte(len(id)))
				want = append(want, id...)
			}
			want = append([]byte{0, 0, 0, 2, 0, 0, 0, byte(len(want))}, want...)
			if d := cmp.Diff(want, got.Data); d != "" {
				t.Errorf("data (-want +got):\n%s", d)
			}
			cut := l.In(nexusC, inCDB(actionReadFullStatus, 40))
			if d := cmp.Diff(want[:40], cut.Data); d != "" {
				t.Errorf("cut data (-want +got):\n%s", d)
			}
		})
	}
}

func TestInReservedAction(t *testing.T) {
	l := newLocal(t, Options{})
	for action := uint8(4); action < 0x20; action++ {
		refused(t, l.In(nexusA, inCDB(action, 0xffff)), &Sense{0x05, 0x24, 0x00, 1})
	}
}
