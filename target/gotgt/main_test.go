// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // gotgt's LUN 0 needs its null store
	"github.com/gostor/gotgt/pkg/scsi/backingstore/remote"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const volumeSize = 4 << 20

// volume is a remote backing store in memory.
type volume struct {
	mu   sync.Mutex
	data [2 * volumeSize]byte
}

func (v *volume) ReadAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return copy(p, v.data[off:]), nil
}

func (v *volume) WriteAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return copy(v.data[off:], p), nil
}

func (v *volume) Sync() (int, error)              { return 0, nil }
func (v *volume) Unmap(int64, int64) (int, error) { return 0, nil }

// devices gives each device of these tests a number: gotgt's map of them is one
// for the process.
var devices atomic.Uint64

// addVolume maps a new volume as a logical unit of a target.
func addVolume(t *testing.T, target string, lun uint64) {
	t.Helper()
	remote.Size = volumeSize
	err := scsi.InitSCSILUMapEx(&config.BackendStorage{
		DeviceID: devices.Add(1), Path: "RemBs:" + target, Online: true, BlockShift: 9,
	}, target, lun, new(volume))
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a driver that serves.
type rig struct {
	*Driver
	t      *testing.T
	target string
	port   int
	ended  chan error
}

// freePort returns a port that was free a moment ago on all addresses.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// targetConfig has a target at 127.0.0.1 in portal group 1 and at 127.0.0.2 in 2.
func targetConfig(target string, port int) *config.Config {
	return &config.Config{
		ISCSIPortals: []config.ISCSIPortalInfo{
			{ID: 7, Portal: fmt.Sprintf("127.0.0.1:%d", port)}, {ID: 8, Portal: fmt.Sprintf("127.0.0.2:%d", port)},
		},
		ISCSITargets: map[string]config.ISCSITarget{target: {TPGTs: map[string][]uint64{"1": {0}, "2": {1}}}},
	}
}

// newDriver makes a driver as an embedding program does.
func newDriver(t *testing.T) *Driver {
	t.Helper()
	Log, EnableStats = slog.New(slog.DiscardHandler), true
	d, err := scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService())
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Driver)
}

// startRig serves a target with a volume as LUN 0.
func startRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Driver: newDriver(t), t: t, target: "iqn.2026-11.test:" + strings.ToLower(t.Name()), port: freePort(t), ended: make(chan error, 1)}
	addVolume(t, r.target, 0)
	if err := r.NewTarget(r.target, targetConfig(r.target, r.port)); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.Run(r.port) }()
	r.untilListening()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// untilListening waits until Run has come so far.
func (r *rig) untilListening() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", r.address("127.0.0.1"))
		if err == nil {
			c.Close()
			return
		}
		select {
		case err := <-r.ended:
			r.t.Fatal(err)
		case <-ctx.Done():
			r.t.Fatal(err)
		case <-tick.C:
		}
	}
}

func (r *rig) address(host string) string { return net.JoinHostPort(host, strconv.Itoa(r.port)) }

// dial logs in to a target.
func (r *rig) dial(host, target string) *initiator.Session {
	r.t.Helper()
	s, err := initiator.Dial(r.t.Context(), initiator.Options{Address: r.address(host), TargetName: target})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}
