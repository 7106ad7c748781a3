// SPDX-License-Identifier: Apache-2.0

package initiator_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	diskName = "iqn.2026-11.test:disk"
	diskSize = 8 << 20
)

var lun = initiator.LUN(1)

// serve runs the project's target with a RAM disk as LUN 1 until the test
// ends, and returns its address and the disk.
func serve(t testing.TB, auth iscsi.Auth) (string, storage.Store) {
	t.Helper()
	store := storagetest.NewRAM(diskSize)
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: diskName, TID: 1})
	if err != nil {
		t.Fatal(err)
	}
	device.AddTargetPort(1, diskName+",t,0x0001")
	unit, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store})
	if err == nil {
		err = device.Attach(1, unit)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := iscsi.NewNode(iscsi.Options{Log: slog.New(slog.DiscardHandler)})
	portal := iscsi.PortalGroup{Tag: 1, Portals: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}
	node.SetTargets([]*iscsi.Target{{Name: diskName, Device: device, Auth: auth}}, []iscsi.PortalGroup{portal}, iscsi.Auth{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.(*net.TCPListener).AcceptTCP()
			if err != nil {
				return
			}
			if err := node.Serve(c, 1); err != nil {
				t.Log(err)
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		node.Close()
	})
	return l.Addr().String(), store
}

// within bounds what a test waits for.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dial logs in, takes the unit attentions, and closes the session at the end of
// the test.
func dial(t testing.TB, o initiator.Options) *initiator.Session {
	t.Helper()
	if !o.Discovery {
		o.TargetName = diskName
	}
	s, err := initiator.Dial(within(t), o)
	if err == nil && !o.Discovery {
		err = s.Settle(within(t), lun)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
