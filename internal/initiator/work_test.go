// SPDX-License-Identifier: Apache-2.0

package initiator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// The verifier finds nothing wrong, whatever way the data goes.
func TestVerifier(t *testing.T) {
	for _, o := range []initiator.Options{
		{InitialR2T: true},
		{ImmediateData: true},
		{InitialR2T: true, ImmediateData: true, HeaderDigest: "CRC32C", DataDigest: "CRC32C", MaxOutstandingR2T: 8, MaxBurstLength: 16 << 10},
		{DataDigest: "CRC32C", FirstBurstLength: 4096, MaxBurstLength: 8192, MaxRecvDataSegmentLength: 512},
		{ImmediateData: true, HeaderDigest: "CRC32C", MaxConnections: 3},
	} {
		name := fmt.Sprintf("R2T=%v,immediate=%v,digests=%s%s,connections=%d", o.InitialR2T, o.ImmediateData, o.HeaderDigest, o.DataDigest, o.MaxConnections)
		t.Run(name, func(t *testing.T) {
			address, _ := serve(t, iscsi.Auth{})
			o.Address = address
			s := dial(t, o)
			for range max(1, o.MaxConnections) - 1 {
				if _, err := s.AddConnection(within(t)); err != nil {
					t.Fatal(err)
				}
			}
			v := &initiator.Verifier{Session: s, LUN: lun, Blocks: diskSize / 512, BlockSize: 512, MaxDepth: 64,
				FUAPercent: 10, FlushEvery: 50, Seed: 1, MaxCommands: 300}
			r, err := v.Run(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if r.Reads+r.Writes+r.Flushes != 300 || r.Flushes != 6 || r.BlocksChecked == 0 {
				t.Errorf("did %+v, want 300 commands, 6 of them flushes, and blocks checked", r)
			}
			if r, err = v.CheckAll(within(t)); err != nil || r.BytesRead != diskSize {
				t.Errorf("CheckAll() = %+v, %v", r, err)
			}
		})
	}
}

// A single wrong byte, a lost write and a misplaced one are each found.
func TestVerifierFinds(t *testing.T) {
	for _, c := range []struct {
		name, want string
		damage     func(disk []byte)
	}{
		{"bit", "at byte 504", func(d []byte) { d[5*512+511] ^= 1 }},
		{"misplaced", "stamp of LBA 9", func(d []byte) { copy(d[5*512:], d[9*512:10*512]) }},
		{"lost", "stamp of LBA 0, write 0", func(d []byte) { clear(d[5*512 : 6*512]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, store := serve(t, iscsi.Auth{})
			s := dial(t, initiator.Options{Address: address, ImmediateData: true})
			v := &initiator.Verifier{Session: s, LUN: lun, Blocks: 16, BlockSize: 512, ReadPercent: -1, MaxCommands: 100, Seed: 2}
			if _, err := v.Run(within(t)); err != nil {
				t.Fatal(err)
			}
			disk := make([]byte, 16*512)
			if _, err := store.ReadAt(t.Context(), disk, 0); err != nil {
				t.Fatal(err)
			}
			c.damage(disk)
			if _, err := store.WriteAt(t.Context(), disk, 0); err != nil {
				t.Fatal(err)
			}
			_, err := v.CheckAll(within(t))
			if err == nil || !strings.Contains(err.Error(), "LBA 5, in a read") || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("CheckAll() = %v, want LBA 5 and %q", err, c.want)
			}
		})
	}
}

// After the loss of a session the verifier goes on with another, allowing
// writes without an answer to have happened or not. It is the same I_T nexus:
// its login waits until what was under way in the first session is over
// (RFC 7143 6.3.5). The session of another ISID would not, and a late write
// could land on a newer one.
func TestVerifierGoesOn(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	port := initiator.Options{Address: address, ISID: pdu.ISID{0x80, 1}}
	first := dial(t, port)
	v := &initiator.Verifier{Session: first, LUN: lun, Blocks: diskSize / 512, BlockSize: 512, MinDepth: 32, MaxDepth: 32, MaxDuration: time.Minute}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	lost := errors.New("lost")
	done := make(chan error)
	go func() {
		_, err := v.Run(ctx)
		if err == nil {
			err = lost
		}
		done <- err
	}()
	if err := first.Ping(ctx, 0, true, nil); err != nil { // some commands have been answered by then
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, initiator.ErrClosed) {
		t.Fatalf("Run() = %v, want the session's end", err)
	}
	v.Session = dial(t, port)
	v.MaxCommands = 200
	if _, err := v.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestVerifierRefuses(t *testing.T) {
	for _, v := range []initiator.Verifier{
		{},
		{Session: new(initiator.Session), Blocks: 1, BlockSize: 100, MaxCommands: 1},
		{Session: new(initiator.Session), Blocks: 1, BlockSize: 512, MaxDepth: 5000, MaxCommands: 1},
		{Session: new(initiator.Session), Blocks: 1, BlockSize: 512, MaxBytes: 100, MaxCommands: 1},
		{Session: new(initiator.Session), Blocks: 1, BlockSize: 512},
	} {
		if _, err := v.Run(t.Context()); err == nil {
			t.Errorf("Run() of %+v has no error", &v)
		}
	}
}

func TestLoadClosedLoop(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	sessions := []*initiator.Session{dial(t, initiator.Options{Address: address, ImmediateData: true}), dial(t, initiator.Options{Address: address})}
	for _, sequential := range []bool{false, true} {
		l := &initiator.Load{Sessions: sessions, LUN: lun, Blocks: diskSize / 512, BlockSize: 512, Bytes: 4096, ReadPercent: 70,
			Sequential: sequential, Depth: 16, Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond}
		r, err := l.Run(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Reads.Count() == 0 || r.Writes.Count() == 0 || r.Bytes != int64(r.Commands())*4096 || r.Service.Count() != r.Commands() {
			t.Errorf("sequential %v: %d reads, %d writes, %d bytes", sequential, r.Reads.Count(), r.Writes.Count(), r.Bytes)
		}
	}
}

// In an open loop the number of commands follows from the rate, and the
// latency is at least the service time.
func TestLoadOpenLoop(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address})
	l := &initiator.Load{Sessions: []*initiator.Session{s}, LUN: lun, Blocks: diskSize / 512, BlockSize: 512, Bytes: 512, ReadPercent: 100,
		Depth: 4, Rate: 500, Duration: 200 * time.Millisecond}
	r, err := l.Run(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Commands(); n != 100 {
		t.Errorf("%d commands, want 100", n)
	}
	if r.Reads.Mean() < r.Service.Mean() {
		t.Errorf("latency %v is less than service time %v", r.Reads.Mean(), r.Service.Mean())
	}
}

func TestLoadStops(t *testing.T) {
	address, _ := serve(t, iscsi.Auth{})
	s := dial(t, initiator.Options{Address: address})
	for _, rate := range []float64{0, 100} {
		l := &initiator.Load{Sessions: []*initiator.Session{s}, LUN: lun, Blocks: 64, BlockSize: 512, Bytes: 512, Rate: rate, Duration: time.Hour}
		stop := errors.New("enough")
		ctx, cancel := context.WithCancelCause(within(t))
		cancel(stop)
		if _, err := l.Run(ctx); !errors.Is(err, stop) {
			t.Errorf("rate %v: Run() = %v, want %v", rate, err, stop)
		}
	}
	l := &initiator.Load{Sessions: []*initiator.Session{s}, LUN: lun, First: 1 << 40, Blocks: 64, BlockSize: 512, Bytes: 512, Depth: 8, Duration: time.Hour}
	var status *initiator.StatusError
	if _, err := l.Run(within(t)); !errors.As(err, &status) {
		t.Errorf("a load beyond the end of the disk: %v", err)
	}
}

// One read costs the initiator no allocation. The benchmark's ns/op are those
// of initiator and target together.
func BenchmarkRead(b *testing.B) {
	address, _ := serve(b, iscsi.Auth{})
	s := dial(b, initiator.Options{Address: address})
	free := make(chan *initiator.Command, 32)
	for range cap(free) {
		free <- &initiator.Command{In: make([]byte, 4096), Done: func(c *initiator.Command) { free <- c }}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		cmd := <-free
		if cmd.Err != nil || cmd.Status != 0 {
			b.Fatal(cmd.Failed())
		}
		if err := s.Submit(cmd.Read16(lun, uint64(i%1000*8), 8, cmd.In, 0)); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(free) {
		<-free
	}
}

// BenchmarkLoad is the closed loop at depth 32; the figure is of initiator and
// target together.
func BenchmarkLoad(b *testing.B) {
	address, _ := serve(b, iscsi.Auth{})
	l := &initiator.Load{Sessions: []*initiator.Session{dial(b, initiator.Options{Address: address, ImmediateData: true})}, LUN: lun,
		Blocks: diskSize / 512, BlockSize: 512, Bytes: 4096, ReadPercent: 100, Depth: 32, Duration: time.Second}
	var commands uint64
	for b.Loop() {
		r, err := l.Run(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		commands += r.Commands()
	}
	b.ReportMetric(float64(commands)/b.Elapsed().Seconds(), "commands/s")
}
