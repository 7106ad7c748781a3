// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const targetName = "iqn.2015-02.com.stu31:t1"

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// tb is what a test and a rapid test have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// newDevice returns a device with a target port, ready for logical units.
func newDevice(t tb, o scsi.DeviceOptions) *scsi.Device {
	t.Helper()
	o.Name, o.TID, o.Log = targetName, max(o.TID, 1), quiet
	d, err := scsi.NewDevice(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	d.AddTargetPort(1, targetName+",t,0x0001")
	return d
}

// attach makes a disk and attaches it.
func attach(t tb, d *scsi.Device, n uint16, o scsi.LogicalUnitOptions) *scsi.LogicalUnit {
	t.Helper()
	o.Log = quiet
	if o.Store == nil {
		o.Store = storagetest.NewRAM(1 << 20)
	}
	lu, err := scsi.NewLogicalUnit(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := d.Attach(n, lu); err != nil {
		t.Fatalf("%v", err)
	}
	return lu
}

// newHost returns an initiator of a new device, whose LUN 1 is a disk and
// has no unit attention pending.
func newHost(t tb, o scsi.LogicalUnitOptions) (*host, *scsi.LogicalUnit) {
	t.Helper()
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, o)
	return openHost(t, d, "a").settle(), lu
}

// faulty returns a host on a disk over a store that can be made to fail.
func faulty(t tb, o scsi.LogicalUnitOptions) (*host, *scsi.LogicalUnit, *storagetest.FaultStore) {
	t.Helper()
	store := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	o.Store = store
	h, lu := newHost(t, o)
	return h, lu, store
}

// A host is an initiator, and the transport between it and the device.
type host struct {
	t   tb
	dev *scsi.Device
	n   *scsi.Nexus
	lun scsi.LUN
	cmd scsi.Command
}

func hostID(name string) scsi.NexusID {
	return scsi.NexusID{Initiator: "iqn.2000-01.org.example:" + name, ISID: [6]byte{0x80, 0, 0, 0, 0, 1}, TargetPort: 1}
}

func openHost(t tb, d *scsi.Device, name string) *host {
	return &host{t: t, dev: d, n: d.Open(hostID(name)), lun: scsi.MakeLUN(1), cmd: scsi.Command{Pool: new(mem.Pool)}}
}

// settle takes the unit attentions that are pending.
func (h *host) settle() *host {
	for range 16 {
		if h.do([]byte{0: 0, 5: 0}, nil, 0).status == scsi.Good {
			return h
		}
	}
	h.t.Fatalf("unit attentions without end")
	return nil
}

// A reply is how a command ended.
type reply struct {
	status   scsi.Status
	sense    []byte
	data     []byte
	inLength uint32
}

// String gives the status, or the sense data as key/ASC/ASCQ.
func (r reply) String() string {
	if r.status != scsi.CheckCondition {
		return fmt.Sprintf("%02x", uint8(r.status))
	}
	if len(r.sense) > 3 && r.sense[0] == 0x72 {
		return fmt.Sprintf("%x/%02x/%02x", r.sense[1], r.sense[2], r.sense[3])
	}
	if len(r.sense) < 18 {
		return fmt.Sprintf("sense of %d bytes", len(r.sense))
	}
	return fmt.Sprintf("%x/%02x/%02x", r.sense[2]&0x0f, r.sense[12], r.sense[13])
}

// info returns the INFORMATION field of fixed format sense data.
func (r reply) info() (v uint32, valid bool) {
	if len(r.sense) < 18 {
		return 0, false
	}
	return binary.BigEndian.Uint32(r.sense[3:]), r.sense[0]&0x80 != 0
}

const good = "00"

// do carries out a command as a transport would: prepare, collect data-out,
// try, execute. in is how many bytes the initiator takes.
func (h *host) do(cdb, out []byte, in int) reply {
	h.t.Helper()
	c := &h.cmd
	h.prepare(c, cdb, len(out), in)
	if !c.Done() {
		if c.Direction == scsi.DataOut {
			c.Out = out[:min(len(out), int(c.Length))]
		}
		if !h.n.TryExecute(c) {
			h.n.Execute(context.Background(), c)
		}
	}
	return h.finish(c)
}

func (h *host) prepare(c *scsi.Command, cdb []byte, out, in int) {
	c.Reset()
	copy(c.CDB[:], cdb)
	c.LUN, c.OutExpected, c.InExpected = h.lun, uint32(out), uint32(in)
	h.n.Prepare(c)
}

// finish checks what every command must fulfil and returns its outcome.
func (h *host) finish(c *scsi.Command) reply {
	h.t.Helper()
	r := reply{status: c.Status, sense: bytes.Clone(c.Sense), inLength: c.InLength}
	if c.In != nil {
		r.data = bytes.Clone(c.In.B)
		c.In.Release()
	}
	switch {
	case !c.Done():
		h.t.Fatalf("% x: not done", c.CDB)
	case (r.status == scsi.CheckCondition) != (len(r.sense) > 0):
		h.t.Fatalf("% x: status %02x with %d bytes of sense data", c.CDB, uint8(r.status), len(r.sense))
	case uint32(len(r.data)) != min(r.inLength, c.InExpected):
		h.t.Fatalf("% x: %d bytes of data-in; has %d, initiator takes %d", c.CDB, len(r.data), r.inLength, c.InExpected)
	case c.Pool.Used() != 0:
		h.t.Fatalf("% x: %d bytes of buffers leaked", c.CDB, c.Pool.Used())
	}
	return r
}

// want is do, and fails the test if the outcome is not the one given.
func (h *host) want(outcome string, cdb, out []byte, in int) reply {
	h.t.Helper()
	r := h.do(cdb, out, in)
	if r.String() != outcome {
		h.t.Fatalf("% x: got %v, want %s", cdb, r, outcome)
	}
	return r
}

// rw16 is a CDB of the READ (16) layout.
func rw16(code, flags byte, lba uint64, blocks uint32) []byte {
	b := make([]byte, 16)
	b[0], b[1] = code, flags
	binary.BigEndian.PutUint64(b[2:], lba)
	binary.BigEndian.PutUint32(b[10:], blocks)
	return b
}

// rw10 is a CDB of the READ (10) layout.
func rw10(code, flags byte, lba uint32, blocks uint16) []byte {
	b := make([]byte, 10)
	b[0], b[1] = code, flags
	binary.BigEndian.PutUint32(b[2:], lba)
	binary.BigEndian.PutUint16(b[7:], blocks)
	return b
}

func (h *host) write(lba uint64, data []byte) {
	h.t.Helper()
	h.want(good, rw16(0x8a, 0, lba, uint32(len(data)/512)), data, 0)
}

func (h *host) read(lba uint64, blocks int) []byte {
	h.t.Helper()
	return h.want(good, rw16(0x88, 0, lba, uint32(blocks)), nil, blocks*512).data
}

func fill(b byte, blocks int) []byte { return bytes.Repeat([]byte{b}, blocks*512) }
