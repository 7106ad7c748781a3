// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

const (
	blockSize = 512
	maxBlocks = 1 << 20 / blockSize // of one command
)

// region is a part of the disk that one worker writes and verifies. Every
// block holds its LBA and the number of the write that it comes from.
type region struct {
	session *initiator.Session
	first   uint64   // LBA
	stamps  []uint64 // by block: the last write's number, 0 for none
	random  *rand.Rand
	number  uint64
	cmd     initiator.Command
	buf     []byte
}

func newRegion(s *initiator.Session, first, blocks uint64, seed uint64) *region {
	return &region{session: s, first: first, stamps: make([]uint64, blocks), random: rand.New(rand.NewPCG(seed, 1)), buf: make([]byte, maxBlocks*blockSize)}
}

func stamp(block []byte, lba, number uint64) {
	for i := 0; i < len(block); i += 16 {
		binary.BigEndian.PutUint64(block[i:], lba)
		binary.BigEndian.PutUint64(block[i+8:], number)
	}
}

// step writes or reads a random part of the region.
func (r *region) step(ctx context.Context) error {
	// Small commands are as frequent as large ones.
	blocks := min(1<<r.random.IntN(12), len(r.stamps), maxBlocks)
	at := r.random.IntN(len(r.stamps) - blocks + 1)
	lba, buf := r.first+uint64(at), r.buf[:blocks*blockSize]
	if r.random.IntN(2) == 0 {
		return r.write(ctx, lba, at, buf)
	}
	return r.read(ctx, lba, at, buf)
}

func (r *region) write(ctx context.Context, lba uint64, at int, buf []byte) error {
	r.number++
	for i := 0; i < len(buf)/blockSize; i++ {
		stamp(buf[i*blockSize:][:blockSize], lba+uint64(i), r.number)
	}
	var flags byte
	if r.random.IntN(16) == 0 {
		flags = initiator.FUA
	}
	r.cmd.Write16(initiator.LUN(1), lba, uint32(len(buf)/blockSize), buf, flags)
	if err := r.session.Do(ctx, &r.cmd); err != nil {
		return fmt.Errorf("write of %d bytes at LBA %d: %w", len(buf), lba, err)
	}
	for i := range len(buf) / blockSize {
		r.stamps[at+i] = r.number
	}
	return nil
}

func (r *region) read(ctx context.Context, lba uint64, at int, buf []byte) error {
	r.cmd.Read16(initiator.LUN(1), lba, uint32(len(buf)/blockSize), buf, 0)
	if err := r.session.Do(ctx, &r.cmd); err != nil {
		return fmt.Errorf("read of %d bytes at LBA %d: %w", len(buf), lba, err)
	}
	want := make([]byte, blockSize)
	for i := range len(buf) / blockSize {
		clear(want)
		if n := r.stamps[at+i]; n > 0 {
			stamp(want, lba+uint64(i), n)
		}
		if got := buf[i*blockSize:][:blockSize]; string(got) != string(want) {
			return fmt.Errorf("LBA %d holds block %d of write %d, want write %d", lba+uint64(i),
				binary.BigEndian.Uint64(got), binary.BigEndian.Uint64(got[8:]), r.stamps[at+i])
		}
	}
	return nil
}

// steps makes a number of steps.
func (r *region) steps(ctx context.Context, n int) error {
	for range n {
		if err := r.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// A workload is a session with its own part of the disk.
type workload struct {
	session       *initiator.Session
	depth         int    // commands under way
	first, blocks uint64 // LBA, and how many
}

// workloads logs in with sessions of every kind, with data of every kind, digests on and
// off, depths 1 to 64.
func workloads(t *testing.T, d *daemon) []workload {
	t.Helper()
	kinds := []struct {
		depth   int
		options initiator.Options
	}{
		{1, initiator.Options{InitialR2T: true}},
		{16, initiator.Options{InitialR2T: true, ImmediateData: true, HeaderDigest: "CRC32C", DataDigest: "CRC32C", MaxOutstandingR2T: 4}},
		{64, initiator.Options{ImmediateData: true, FirstBurstLength: 128 << 10, MaxBurstLength: 512 << 10}},
		{8, initiator.Options{DataDigest: "CRC32C", FirstBurstLength: 16 << 10, MaxBurstLength: 32 << 10, MaxRecvDataSegmentLength: 8 << 10, MaxOutstandingR2T: 8}},
	}
	var list []workload
	for i, c := range kinds {
		c.options.Address, c.options.TargetName = d.portals[i%2], peer.IQN
		c.options.InitiatorName = fmt.Sprintf("iqn.2026-11.test:verify-%d", i)
		s, err := initiator.Dial(t.Context(), c.options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Logout(context.Background()); err != nil {
				t.Errorf("logout: %v", err)
			}
		})
		if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
			t.Fatal(err)
		}
		blocks := uint64(diskSize / blockSize / len(kinds))
		list = append(list, workload{s, c.depth, uint64(i) * blocks, blocks})
	}
	return list
}

// TestVerify runs the project's own initiator, which checks every sequence
// number, residual and block, through upgrades, with a reservation held.
func TestVerify(t *testing.T) {
	d := start(t, builds.a.Path(t))
	const register, reserve, allRegistrants = 0, 1, 7 // only the registered may write
	var jobs []func() error
	for n, w := range workloads(t, d) {
		var cmd initiator.Command
		err := w.session.Do(t.Context(), cmd.ReserveOut(initiator.LUN(1), register, 0, 0, uint64(n+1), 0))
		if n == 0 && err == nil {
			err = w.session.Do(t.Context(), cmd.ReserveOut(initiator.LUN(1), reserve, allRegistrants, 1, 0, 0))
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks := w.blocks / uint64(w.depth)
		for i := range uint64(w.depth) {
			r := newRegion(w.session, w.first+i*blocks, blocks, uint64(n*100)+i)
			jobs = append(jobs, again(t, d, func() error { return r.steps(t.Context(), 20) }))
		}
	}
	reports := during(t, d, 0, jobs...)
	if len(reports) < *upgrades {
		t.Errorf("%d upgrades, want %d", len(reports), *upgrades)
	}
}

// TestReservationsMove holds a persistent reservation through upgrades: it goes
// on to keep others out, and its holder in.
func TestReservationsMove(t *testing.T) {
	const (
		register, reserve, release = 0, 1, 2
		writeExclusive             = 1
		key                        = 0xfeed
	)
	d := start(t, builds.a.Path(t))
	lun := initiator.LUN(1)
	dial := func(name string) *initiator.Session {
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portals[0], TargetName: peer.IQN, InitiatorName: "iqn.2026-11.test:" + name})
		if err == nil {
			err = s.Settle(t.Context(), lun)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Logout(context.Background()) })
		return s
	}
	holder, other := dial("holder"), dial("other")
	var cmd initiator.Command
	buf := make([]byte, blockSize)
	do := func(s *initiator.Session, c *initiator.Command) error { return s.Do(t.Context(), c) }
	good := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	conflict := func(what string, err error) {
		t.Helper()
		var status *initiator.StatusError
		if !errors.As(err, &status) || status.Status != initiator.StatusReservationConflict {
			t.Fatalf("%s: %v, want RESERVATION CONFLICT", what, err)
		}
	}
	good("register", do(holder, cmd.ReserveOut(lun, register, 0, 0, key, 0)))
	good("reserve", do(holder, cmd.ReserveOut(lun, reserve, writeExclusive, key, 0, 0)))
	for n := range *upgrades {
		if _, err := d.upgrade(t); err != nil {
			t.Fatal(err)
		}
		good(fmt.Sprintf("holder's write after upgrade %d", n+1), do(holder, cmd.Write10(lun, 0, 1, buf, 0)))
		conflict(fmt.Sprintf("other's write after upgrade %d", n+1), do(other, cmd.Write10(lun, 0, 1, buf, 0)))
	}
	good("release", do(holder, cmd.ReserveOut(lun, release, writeExclusive, key, 0, 0)))
}
