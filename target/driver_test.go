// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// tagged is a RAM disk with an ID.
type tagged struct{ storage.Store }

const identity = "what the driver knows it by"

func (s tagged) Info() storage.Info {
	info := s.Store.Info()
	info.ID = identity
	return info
}

func init() {
	storage.Register("tagged", storage.Driver{
		Open: func(_ context.Context, _ string, o storage.Options) (storage.Store, error) {
			return tagged{storagetest.NewRAM(o.Size)}, nil
		},
		Identify: func(_ string, o storage.Options) (string, int64, error) { return identity, o.Size, nil },
		Needs:    storage.SettingSize,
	})
}

// A registered driver is all that a backend takes: its disks are served, several of them without a
// path, and found to be the same when the configuration is applied again.
func TestDriverOfItsOwn(t *testing.T) {
	s := embed(t, Options{})
	conf := func() *config.Config {
		return &config.Config{Targets: []config.Target{{Name: iqnA, LUNs: []config.LUN{
			{Number: 1, Backend: "tagged", Options: storage.Options{Size: 1 << 20}}, {Number: 2, Backend: "tagged", Options: storage.Options{Size: 1 << 20}},
		}}}}
	}
	if _, err := s.Apply(t.Context(), conf(), false); err != nil {
		t.Fatal(err)
	}
	address := listen(t, s)
	s.Serve()
	session, err := dialTarget(t, address, iqnA)
	if err != nil {
		t.Fatal(err)
	}
	var cmd initiator.Command
	for lun := range uint16(2) {
		if err := session.Settle(t.Context(), initiator.LUN(lun+1)); err != nil {
			t.Fatal(err)
		}
		if err := session.Do(t.Context(), cmd.Read10(initiator.LUN(lun+1), 0, 1, make([]byte, 512), 0)); err != nil {
			t.Error(err)
		}
	}
	p, err := s.Apply(t.Context(), conf(), false)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Empty() {
		t.Errorf("the same configuration again: %q", p.Lines())
	}
}

// TestDetachEndsHangingCalls takes away a disk whose store hangs: that ends, and the command finds its
// disk gone.
func TestDetachEndsHangingCalls(t *testing.T) {
	s := embed(t, Options{})
	if err := s.AddTarget(&config.Target{Name: iqnA}, nil); err != nil {
		t.Fatal(err)
	}
	store := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	reached := make(chan storagetest.Call, 1)
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Count: 1, Reached: reached, Ends: true})
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store})
	if err == nil {
		err = s.Attach(iqnA, 1, lu)
	}
	if err != nil {
		t.Fatal(err)
	}
	address := listen(t, s)
	s.Serve()
	session, err := dialTarget(t, address, iqnA)
	if err == nil {
		err = session.Settle(t.Context(), initiator.LUN(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	cmd := &initiator.Command{LUN: initiator.LUN(1), CDB: [16]byte{0x35}, Done: func(*initiator.Command) { close(done) }}
	if err := session.Submit(cmd); err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := s.Detach(iqnA, 1); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := cmd.Failed(); err == nil || !strings.Contains(err.Error(), "code 0x2500") {
		t.Errorf("the command: %v, want LOGICAL UNIT NOT SUPPORTED", err)
	}
}
