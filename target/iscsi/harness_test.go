// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testTarget    = "iqn.2026-11.test:disk"
	testInitiator = "iqn.2026-11.test:initiator"
	testDiskSize  = 8 << 20
)

// rig is a Node with one disk, listening on loopback.
type rig struct {
	t       *testing.T
	node    *Node
	accepts atomic.Pointer[Node] // node, for the goroutine that accepts
	target  *Target
	store   storage.Store
	l       *net.TCPListener
	done    chan struct{}
	buffer  int           // bytes to send that the kernel keeps for a connection; 0: its default
	changed func(*Target) // how the target of the next Node differs; nil: it does not
}

// newDisk returns a target with a RAM disk as LUN 1.
func newDisk(t testing.TB, limits Limits, auth Auth) (*Target, storage.Store) {
	t.Helper()
	store := storagetest.NewRAM(testDiskSize)
	return diskOver(t, store, limits, auth), store
}

func diskOver(t testing.TB, store storage.Store, limits Limits, auth Auth) *Target {
	t.Helper()
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: testTarget, TID: 1})
	if err != nil {
		t.Fatal(err)
	}
	device.AddTargetPort(1, testTarget+",t,0x0001")
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store})
	if err == nil {
		err = device.Attach(1, lu)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Target{Name: testTarget, Device: device, Limits: limits, Auth: auth}
}

// announced is what discovery tells, the same in every test whatever the port.
var announced = []PortalGroup{{Tag: 1, Portals: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:3260")}}}

func newRig(t *testing.T, limits Limits, auth Auth) *rig {
	t.Helper()
	return newRigOn(t, limits, auth, realSystem, 0)
}

// newRigOn is newRig with another system and size of send buffers.
func newRigOn(t *testing.T, limits Limits, auth Auth, sys system, buffer int) *rig {
	t.Helper()
	return newRigWith(t, limits, auth, sys, buffer, FastPathsAuto)
}

// newRigWith is newRigOn with shortcuts forced on or off.
func newRigWith(t *testing.T, limits Limits, auth Auth, sys system, buffer int, f FastPaths) *rig {
	t.Helper()
	return newRigOf(t, limits, auth, sys, buffer, Options{FastPaths: f})
}

// newRigOf is newRigOn with a Node of these options.
func newRigOf(t *testing.T, limits Limits, auth Auth, sys system, buffer int, o Options) *rig {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Arena = o.Arena || withArena
	r := &rig{t: t, node: NewNode(o), done: make(chan struct{}), buffer: buffer}
	r.node.sys = sys
	r.accepts.Store(r.node)
	r.target, r.store = newDisk(t, limits, auth)
	r.node.SetTargets([]*Target{r.target}, announced, Auth{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.l = l.(*net.TCPListener)
	go func() {
		defer close(r.done)
		for {
			c, err := r.l.AcceptTCP()
			if err != nil {
				return
			}
			if r.buffer > 0 {
				_ = c.SetWriteBuffer(r.buffer)
			}
			if err := r.accepts.Load().Serve(c, 1); err != nil {
				t.Log(err)
			}
		}
	}()
	t.Cleanup(r.close)
	return r
}

// close ends everything; no buffer may be on loan afterwards.
func (r *rig) close() {
	r.l.Close()
	<-r.done
	r.node.Close()
	if n := r.node.MemoryUsed(); n != 0 {
		r.t.Errorf("%d bytes of buffers are still on loan", n)
	}
}

func (r *rig) address() string { return r.l.Addr().String() }

// dial opens a session with the project's own initiator.
func (r *rig) dial(o initiator.Options) *initiator.Session {
	r.t.Helper()
	o.Address, o.TargetName = r.address(), testTarget
	s, err := initiator.Dial(r.t.Context(), o)
	if err == nil {
		err = s.Settle(r.t.Context(), initiator.LUN(1))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}

// none waits until the node has no session and no connection.
func (r *rig) none() {
	r.t.Helper()
	r.until("no session and no connection is left", func() bool { return len(r.node.sessionList())+len(r.node.connList()) == 0 })
}

// until waits for something that comes soon.
func (r *rig) until(what string, reached func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// raw is a client that sends and receives PDUs as they are.
type raw struct {
	t testing.TB
	c net.Conn
}

func (r *rig) raw() *raw {
	r.t.Helper()
	return r.rawFrom("127.0.0.1")
}

// rawFrom is raw from an address of loopback's.
func (r *rig) rawFrom(ip string) *raw {
	r.t.Helper()
	c, err := from(ip)(context.Background(), "tcp", r.address())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &raw{r.t, c}
}

// from returns what dials from an address.
func from(ip string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext
}

// encode returns a PDU with its data segment, which is padded.
func encode(p pdu.PDU, data []byte) []byte {
	var h pdu.BHS
	p.Encode(&h)
	b := append(h[:], data...)
	return append(b, make([]byte, pdu.Padded(len(data))-len(data))...)
}

func (r *raw) send(p pdu.PDU, data []byte) {
	r.t.Helper()
	if _, err := r.c.Write(encode(p, data)); err != nil {
		r.t.Fatal(err)
	}
}

// receive reads one PDU.
func (r *raw) receive() (pdu.PDU, []byte) {
	r.t.Helper()
	p, data, err := readPDU(r.c)
	if err != nil {
		r.t.Fatalf("receive: %v", err)
	}
	return p, data
}

func readPDU(c io.Reader) (pdu.PDU, []byte, error) {
	var h pdu.BHS
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return nil, nil, err
	}
	data := make([]byte, pdu.Padded(h.DataSegmentLength()))
	if _, err := io.ReadFull(c, data); err != nil {
		return nil, nil, err
	}
	p := pdu.New(h.Opcode())
	p.Decode(&h)
	return p, data[:h.DataSegmentLength()], nil
}

// loginPDU is a one-step login into full feature phase.
func loginPDU(keys ...string) []byte {
	text := []byte(strings.Join(append([]string{"InitiatorName=" + testInitiator, "TargetName=" + testTarget}, keys...), "\x00") + "\x00")
	return encode(&pdu.LoginRequest{
		Transit: true, CSG: pdu.LoginOperationalNegotiation, NSG: pdu.FullFeaturePhase,
		DataLength: uint32(len(text)), ISID: pdu.ISID{0x80, 1}, InitiatorTaskTag: 1, CmdSN: 1,
	}, text)
}

// login logs in and clears the unit attention; the next CmdSN is 2.
func (r *raw) login(keys ...string) *pdu.LoginResponse {
	r.t.Helper()
	if _, err := r.c.Write(loginPDU(keys...)); err != nil {
		r.t.Fatal(err)
	}
	p, _ := r.receive()
	resp, ok := p.(*pdu.LoginResponse)
	if !ok || resp.Status != pdu.LoginSuccess || resp.NSG != pdu.FullFeaturePhase {
		r.t.Fatalf("login: %v", p)
	}
	r.send(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 2, CmdSN: 1}, nil) // TEST UNIT READY
	if p, _ := r.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.CheckCondition) {
		r.t.Fatalf("first command: %v, want a unit attention", p)
	}
	return resp
}

const lun1 = 1 << 48

// read10 and write10 return commands for blocks of 512 bytes.
func read10(tag, cmdSN, lba uint32, blocks int) *pdu.SCSICommand {
	p := &pdu.SCSICommand{Final: true, Read: true, Attribute: pdu.Simple, LUN: lun1, InitiatorTaskTag: tag,
		ExpectedDataTransferLength: uint32(blocks * 512), CmdSN: cmdSN}
	transfer10(p, 0x28, lba, blocks)
	return p
}

func write10(tag, cmdSN, lba uint32, blocks, immediate int) *pdu.SCSICommand {
	p := &pdu.SCSICommand{Final: true, Write: true, Attribute: pdu.Simple, LUN: lun1, InitiatorTaskTag: tag,
		ExpectedDataTransferLength: uint32(blocks * 512), CmdSN: cmdSN, DataLength: uint32(immediate)}
	transfer10(p, 0x2a, lba, blocks)
	return p
}

func transfer10(p *pdu.SCSICommand, op byte, lba uint32, blocks int) {
	p.CDB[0] = op
	binary.BigEndian.PutUint32(p.CDB[2:], lba)
	binary.BigEndian.PutUint16(p.CDB[7:], uint16(blocks))
}

// pattern returns n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i*7) ^ seed
	}
	return b
}

// stored checks what the disk holds at an LBA.
func (r *rig) stored(lba int64, want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	if _, err := r.store.ReadAt(r.t.Context(), got, lba*512); err != nil {
		r.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		r.t.Errorf("LBA %d does not hold what was written", lba)
	}
}
