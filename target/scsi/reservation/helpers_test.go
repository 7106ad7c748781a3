// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Nexuses that the tests use: three initiator ports on port 1, and the first
// of them on port 2.
var (
	nexusA  = Nexus{Initiator: "iqn.2024-01.org.example:a", ISID: [6]byte{0x40, 0, 0, 1, 0, 0}, TargetPort: 1}
	nexusA2 = nexusA.onPort(2)
	nexusB  = Nexus{Initiator: "iqn.2024-01.org.example:b", ISID: [6]byte{0x40, 0, 0, 2, 0, 0}, TargetPort: 1}
	nexusC  = Nexus{Initiator: "iqn.2024-01.org.example:c", ISID: [6]byte{0x40, 0, 0, 3, 0, 0xff}, TargetPort: 1}
)

var allTypes = []Type{
	WriteExclusive, ExclusiveAccess,
	WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly,
	WriteExclusiveAllRegistrants, ExclusiveAccessAllRegistrants,
}

// whole fails the test if l could not read its file.
func whole(t interface{ Fatal(...any) }, l *Local) *Local {
	if err := l.Damage(); err != nil {
		t.Fatal(err)
	}
	return l
}

// newLocal returns a Local of a target with ports 1 and 2.
func newLocal(t testing.TB, o Options) *Local {
	t.Helper()
	if o.Ports == nil {
		o.Ports = func() []uint16 { return []uint16{1, 2} }
	}
	return whole(t, New(o))
}

// outCDB returns a PERSISTENT RESERVE OUT CDB.
func outCDB(action uint8, scopeType uint8, length int) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[2] = 0x5f, action, scopeType
	binary.BigEndian.PutUint32(cdb[5:], uint32(length))
	return cdb
}

// inCDB returns a PERSISTENT RESERVE IN CDB.
func inCDB(action uint8, allocation uint16) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x5e, action
	binary.BigEndian.PutUint16(cdb[7:], allocation)
	return cdb
}

// basicList returns a parameter list with TransportIDs if there are any.
func basicList(key, newKey uint64, flags uint8, ids ...[]byte) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], newKey)
	b[20] = flags
	if flags&flagSpecPorts != 0 {
		var all []byte
		for _, id := range ids {
			all = append(all, id...)
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
		b = append(b, all...)
	}
	return b
}

// moveList returns the parameter list of REGISTER AND MOVE.
func moveList(key, newKey uint64, flags uint8, port uint16, id []byte) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], newKey)
	b[17] = flags
	binary.BigEndian.PutUint16(b[18:], port)
	binary.BigEndian.PutUint32(b[20:], uint32(len(id)))
	return append(b, id...)
}

// portID returns the TransportID of n's initiator port.
func portID(n Nexus) []byte { return appendTransportID(nil, n) }

// deviceID returns the TransportID of an initiator device.
func deviceID(name string) []byte {
	text := append([]byte(name), 0)
	for len(text)%4 != 0 || len(text) < 20 {
		text = append(text, 0)
	}
	return append([]byte{0x05, 0, 0, byte(len(text))}, text...)
}

// out sends a PERSISTENT RESERVE OUT with params as long as they are.
func out(l *Local, n Nexus, action uint8, typ Type, params []byte) Result {
	return l.Out(n, outCDB(action, uint8(typ), len(params)), params)
}

// good fails the test unless r is GOOD with those unit attentions.
func good(t testing.TB, r Result, want ...Attention) {
	t.Helper()
	if r.Conflict || r.Sense != nil {
		t.Fatalf("conflict %t, sense %+v; want GOOD", r.Conflict, r.Sense)
	}
	if d := cmp.Diff(want, r.Attention); d != "" {
		t.Fatalf("unit attentions (-want +got):\n%s", d)
	}
}

// refused fails the test unless r is CHECK CONDITION with that sense.
func refused(t testing.TB, r Result, want *Sense) {
	t.Helper()
	if d := cmp.Diff(Result{Sense: want}, r); d != "" {
		t.Fatalf("result (-want +got):\n%s", d)
	}
}

// failed fails the test unless r is INTERNAL TARGET FAILURE and says that path
// could not be written.
func failed(t testing.TB, r Result, path string) {
	t.Helper()
	if r.Err == nil || !strings.Contains(r.Err.Error(), path) {
		t.Fatalf("error %v does not name %s", r.Err, path)
	}
	r.Err = nil
	refused(t, r, &Sense{0x04, 0x44, 0x00, -1})
}

// conflicting fails the test unless r is RESERVATION CONFLICT and nothing else.
func conflicting(t testing.TB, r Result) {
	t.Helper()
	if d := cmp.Diff(Result{Conflict: true}, r); d != "" {
		t.Fatalf("result (-want +got):\n%s", d)
	}
}

// register registers n with key.
func register(t testing.TB, l *Local, n Nexus, key uint64) {
	t.Helper()
	good(t, out(l, n, actionRegisterAndIgnore, 0, basicList(0, key, 0)))
}

// reserve reserves for n, which is registered with key.
func reserve(t testing.TB, l *Local, n Nexus, key uint64, typ Type) {
	t.Helper()
	good(t, out(l, n, actionReserve, typ, basicList(key, 0, 0)))
}

// preempted, released and gone are the unit attentions that n gets.
func preempted(n Nexus) Attention { return Attention{n, 0x2a, 0x03} }
func released(n Nexus) Attention  { return Attention{n, 0x2a, 0x04} }
func gone(n Nexus) Attention      { return Attention{n, 0x2a, 0x05} }

// keys returns what is registered.
func keys(l *Local) map[Nexus]uint64 {
	m := make(map[Nexus]uint64)
	for _, r := range l.Snapshot().Registrations {
		m[r.Nexus] = r.Key
	}
	return m
}

// wantKeys fails the test unless want is what is registered.
func wantKeys(t testing.TB, l *Local, want map[Nexus]uint64) {
	t.Helper()
	if d := cmp.Diff(want, keys(l)); d != "" {
		t.Fatalf("registrations (-want +got):\n%s", d)
	}
}

// wantHeld fails the test unless the reservation is of that type and holder;
// the zero Nexus stands for no single holder.
func wantHeld(t testing.TB, l *Local, typ Type, holder Nexus) {
	t.Helper()
	s := l.Snapshot()
	var got Nexus
	if s.Holder != nil {
		got = *s.Holder
	}
	if s.Type != typ || got != holder {
		t.Fatalf("reservation: %v held by %v, want %v held by %v", s.Type, got, typ, holder)
	}
}

// wantGeneration fails the test unless PRGENERATION is want.
func wantGeneration(t testing.TB, l *Local, want uint32) {
	t.Helper()
	if got := l.Generation(); got != want {
		t.Fatalf("PRGENERATION = %d, want %d", got, want)
	}
}

// holderOf returns what wantHeld expects of a reservation that n made.
func holderOf(typ Type, n Nexus) Nexus {
	if typ.allRegistrants() {
		return Nexus{}
	}
	return n
}
