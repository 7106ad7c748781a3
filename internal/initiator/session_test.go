// SPDX-License-Identifier: Apache-2.0

package initiator_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

func TestHelpers(t *testing.T) {
	address, store := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address, ImmediateData: true})
	ctx := within(t)

	luns, err := s.ReportLUNs(ctx)
	if err != nil || !slices.Contains(luns, lun) {
		t.Errorf("ReportLUNs() = %x, %v, want LUN 1 among them", luns, err)
	}
	capacity, err := s.ReadCapacity(ctx, lun)
	if want := (initiator.Capacity{Blocks: diskSize / 512, BlockSize: 512}); err != nil || capacity != want {
		t.Errorf("ReadCapacity() = %v, %v, want %v", capacity, err, want)
	}
	if data, err := s.Inquiry(ctx, lun, false, 0, 96); err != nil || len(data) < 36 || data[0] != 0 {
		t.Errorf("Inquiry() = %x, %v, want a disk", data, err)
	}
	var cmd initiator.Command
	want := bytes.Repeat([]byte("one block of it."), 256)
	if err := s.Do(ctx, cmd.Write10(lun, 8, 8, want, initiator.FUA)); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(ctx, cmd.Flush(lun)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := store.ReadAt(ctx, got, 8*512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the disk does not hold what was written, %v", err)
	}
	clear(got)
	if err := s.Do(ctx, cmd.Read10(lun, 8, 8, got, 0)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("READ (10) brought something else, %v", err)
	}
	if err := s.Ping(ctx, 0, false, []byte("are you there?")); err != nil {
		t.Error(err)
	}
	if err := s.Logout(ctx); err != nil {
		t.Error(err)
	}
	if err := s.TestUnitReady(ctx, lun); !errors.Is(err, initiator.ErrLoggedOut) {
		t.Errorf("a command after the logout: %v", err)
	}
}

func TestCompareAndWriteAndUnmap(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address})
	ctx := within(t)
	var cmd initiator.Command
	buf := append(make([]byte, 512), bytes.Repeat([]byte{7}, 512)...)
	if err := s.Do(ctx, cmd.CompareAndWrite(lun, 3, 1, buf)); err != nil {
		t.Fatal(err)
	}
	var status *initiator.StatusError
	if err := s.Do(ctx, cmd.CompareAndWrite(lun, 3, 1, buf)); !errors.As(err, &status) {
		t.Fatalf("a second COMPARE AND WRITE: %v", err)
	}
	const miscompare = 0x0e
	if key, code := initiator.DecodeSense(status.Sense); key != miscompare || code != 0x1d00 {
		t.Errorf("sense %x/%04x, want a miscompare", key, code)
	}
	if err := s.Do(ctx, cmd.Unmap(lun, initiator.Range{LBA: 3, Blocks: 1})); err != nil {
		t.Fatal(err)
	}
	got := bytes.Repeat([]byte{1}, 512)
	if err := s.Do(ctx, cmd.Read16(lun, 3, 1, got, 0)); err != nil || !bytes.Equal(got, make([]byte, 512)) {
		t.Errorf("the block is %x after UNMAP, %v", got[:16], err)
	}
}

func TestReservation(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	holder := dial(t, initiator.Options{Address: address})
	other := dial(t, initiator.Options{Address: address})
	ctx := within(t)
	const register, reserve, exclusive, key = 0, 1, 3, 0xabcd
	var cmd initiator.Command
	if err := holder.Do(ctx, cmd.ReserveOut(lun, register, 0, 0, key, 0)); err != nil {
		t.Fatal(err)
	}
	if err := holder.Do(ctx, cmd.ReserveOut(lun, reserve, exclusive, key, 0, 0)); err != nil {
		t.Fatal(err)
	}
	var status *initiator.StatusError
	err := other.Do(ctx, cmd.Read16(lun, 0, 1, make([]byte, 512), 0))
	if !errors.As(err, &status) || status.Status != initiator.StatusReservationConflict {
		t.Errorf("a read by another initiator: %v, want a reservation conflict", err)
	}
	buf := make([]byte, 64)
	if err := other.Do(ctx, cmd.ReserveIn(lun, 0, buf)); err != nil || cmd.Received != 16 || buf[15] != 0xcd {
		t.Errorf("READ KEYS: %d bytes, %x, %v", cmd.Received, buf[:16], err)
	}
}

func TestDiscovery(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address, Discovery: true})
	portals, err := s.SendTargets(within(t), "All")
	want := []initiator.Portal{{Target: diskName, Address: address, Group: "1"}}
	if err != nil || !slices.Equal(portals, want) {
		t.Fatalf("SendTargets() = %v, %v, want %v", portals, err, want)
	}
}

// A second connection carries commands, and the session goes on without it.
func TestConnections(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address, MaxConnections: 2})
	ctx := within(t)
	if s.Params().MaxConnections < 2 {
		t.Fatalf("MaxConnections is %d", s.Params().MaxConnections)
	}
	n, err := s.AddConnection(ctx)
	if err != nil || n != 2 {
		t.Fatalf("AddConnection() = %d, %v", n, err)
	}
	var cmd initiator.Command
	for i := range 8 {
		cmd.Connection = i%2 + 1
		if err := s.Do(ctx, cmd.Read16(lun, uint64(i), 1, make([]byte, 512), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.LogoutConnection(ctx, 2, 2); err != nil {
		t.Fatal(err)
	}
	if len(s.Connections()) != 1 {
		t.Errorf("%d connections are left, want 1", len(s.Connections()))
	}
	cmd.Connection = 2
	if err := s.Do(ctx, cmd.Read16(lun, 0, 1, make([]byte, 512), 0)); err == nil {
		t.Error("a command over the connection that was logged out succeeded")
	}
	if err := s.TestUnitReady(ctx, lun); err != nil {
		t.Error(err)
	}
}

func TestTaskManagement(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address})
	ctx := within(t)
	if r, err := s.TaskManagement(ctx, pdu.LogicalUnitReset, lun, nil); err != nil || r != pdu.FunctionComplete {
		t.Fatalf("LOGICAL UNIT RESET: response %d, %v", r, err)
	}
	var status *initiator.StatusError
	if err := s.TestUnitReady(ctx, lun); !errors.As(err, &status) {
		t.Fatalf("TEST UNIT READY after a reset: %v, want a unit attention", err)
	}
	const attention = 6
	if key, _ := initiator.DecodeSense(status.Sense); key != attention {
		t.Errorf("sense key %x, want a unit attention", key)
	}
	if r, err := s.TaskManagement(ctx, pdu.AbortTaskSet, initiator.LUN(77), nil); err != nil || r != pdu.LUNDoesNotExist {
		t.Errorf("ABORT TASK SET of no unit: response %d, %v", r, err)
	}
}

func TestWrongTarget(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	_, err := initiator.Dial(within(t), initiator.Options{Address: address, TargetName: diskName + "s"})
	var refused *initiator.LoginError
	if !errors.As(err, &refused) || refused.Status != pdu.TargetNotFound {
		t.Fatalf("Dial() = %v, want status 0x0203", err)
	}
}

// A wrong header digest costs the connection.
func TestWireFault(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	w, p, err := initiator.Login(within(t), initiator.Options{Address: address, TargetName: diskName, HeaderDigest: "CRC32C"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if !p.HeaderDigest {
		t.Fatal("no header digest was negotiated")
	}
	nop := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, CmdSN: p.CmdSN, ExpStatSN: p.ExpStatSN}
	if err := w.Send(within(t), nop, []byte("abc"), initiator.Fault{}); err != nil {
		t.Fatal(err)
	}
	answer, data, err := w.Receive(within(t))
	if _, ok := answer.(*pdu.NOPIn); !ok || err != nil || string(data) != "abc" {
		t.Fatalf("ping answered with %v, %q, %v", answer, data, err)
	}
	if err := w.Send(within(t), nop, nil, initiator.Fault{HeaderDigest: true}); err != nil {
		t.Fatal(err)
	}
	if answer, _, err := w.Receive(within(t)); err == nil {
		t.Fatalf("a wrong header digest was answered with %v", answer)
	}
}
