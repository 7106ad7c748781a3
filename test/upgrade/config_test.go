// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// attention is a unit attention's additional sense code, 0 if the command was
// good.
func attention(t *testing.T, s *initiator.Session, lun uint16) uint16 {
	t.Helper()
	err := s.TestUnitReady(t.Context(), initiator.LUN(lun))
	var status *initiator.StatusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		_, code := initiator.DecodeSense(status.Sense)
		return code
	}
	t.Fatal(err)
	return 0
}

// login opens a session whose unit attentions are out of the way.
func login(t *testing.T, d *daemon, name string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portals[0], TargetName: peer.IQN, InitiatorName: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustUpgrade(t *testing.T, d *daemon) {
	t.Helper()
	if _, err := d.upgrade(t); err != nil {
		t.Fatal(err)
	}
}

// mustForce is an upgrade to a configuration that hurts a session.
func mustForce(t *testing.T, d *daemon) {
	t.Helper()
	if _, err := d.force(t); err != nil {
		t.Fatal(err)
	}
}

func image(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestConfigurationMoves changes the configuration from one generation to the
// next: a session sees each change as SPC says, once, and nothing else.
func TestConfigurationMoves(t *testing.T) {
	const (
		nothing         = 0
		writeProtected  = 0x2700
		capacityChanged = 0x2a09
		lunsChanged     = 0x3f0e
		noSuchUnit      = 0x2500
	)
	d := start(t, builds.a.Path(t))
	s := login(t, d, "iqn.2026-11.test:config")
	expect := func(when string, lun uint16, codes ...uint16) {
		t.Helper()
		var got []uint16
		for range codes {
			got = append(got, attention(t, s, lun))
		}
		if diff := cmp.Diff(codes, got); diff != "" {
			t.Errorf("%s, LUN %d answers:\n%s", when, lun, diff)
		}
	}
	mustUpgrade(t, d)
	expect("after an upgrade that changed nothing", 1, nothing)

	second := filepath.Join(d.dir, "second.img")
	image(t, second, 8<<20)
	d.configure(t, fmt.Sprintf("<target %s>\nbacking-store %s\nbacking-store %s\n</target>\n", peer.IQN, d.disk, second))
	mustUpgrade(t, d)
	expect("after LUN 2 was added", 1, lunsChanged, nothing)
	expect("after LUN 2 was added", 2, noSuchUnit) // for those who do not ask what it is
	if _, err := s.Inquiry(t.Context(), initiator.LUN(2), false, 0, 96); err != nil {
		t.Fatal(err)
	}
	expect("after LUN 2 was added", 2, nothing)

	image(t, d.disk, 2*diskSize)
	mustUpgrade(t, d)
	expect("after the disk has grown", 1, capacityChanged, nothing)
	capacity, err := s.ReadCapacity(t.Context(), initiator.LUN(1))
	if err != nil || capacity.Blocks != 2*diskSize/blockSize {
		t.Errorf("capacity %+v, %v", capacity, err)
	}

	d.configure(t, peer.OneDisk(d.disk, ""))
	mustUpgrade(t, d)
	expect("after LUN 2 was removed", 1, lunsChanged, nothing)
	expect("after LUN 2 was removed", 2, noSuchUnit)

	d.configure(t, peer.OneDisk(d.disk, "readonly 1"))
	mustUpgrade(t, d)
	var cmd initiator.Command
	err = s.Do(t.Context(), cmd.Write10(initiator.LUN(1), 0, 1, make([]byte, blockSize), 0))
	var status *initiator.StatusError
	if !errors.As(err, &status) {
		t.Fatalf("write to a read-only disk: %v", err)
	}
	if _, code := initiator.DecodeSense(status.Sense); code != writeProtected {
		t.Errorf("write to a read-only disk ends with %#x", code)
	}
}

// TestDismissal takes an initiator's access away: its session is asked to log
// out and ended, the others are not touched.
func TestDismissal(t *testing.T) {
	d := start(t, builds.a.Path(t))
	stays, goes := login(t, d, "iqn.2026-11.test:stays"), login(t, d, "iqn.2026-11.test:goes")
	d.configure(t, fmt.Sprintf("<target %s>\nbacking-store %s\ninitiator-name iqn.2026-11.test:stays\n</target>\n", peer.IQN, d.disk))
	mustUpgrade(t, d)
	select {
	case <-goes.Done():
	case <-time.After(20 * time.Second):
		t.Error("the session of an initiator that is not allowed any more goes on")
	}
	if err := stays.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("the other session: %v", err)
	}
	_, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portals[0], TargetName: peer.IQN, InitiatorName: "iqn.2026-11.test:goes"})
	var refused *initiator.LoginError
	if !errors.As(err, &refused) {
		t.Errorf("its next login: %v", err)
	}
}

// TestDroppedTarget removes a target that has a session.
func TestDroppedTarget(t *testing.T) {
	d := start(t, builds.a.Path(t))
	s := login(t, d, "iqn.2026-11.test:dropped")
	other := filepath.Join(d.dir, "other.img")
	image(t, other, 1<<20)
	d.configure(t, fmt.Sprintf("<target iqn.2026-11.test:other>\nbacking-store %s\n</target>\n", other))
	mustUpgrade(t, d)
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Error("the session with a target that is gone goes on")
	}
}

// TestStop ends the daemon with SIGTERM while a session is open: its
// initiator is asked to log out, the process ends with status 0 and leaves
// nothing behind.
func TestStop(t *testing.T) {
	d := start(t, builds.a.Path(t))
	s := login(t, d, "iqn.2026-11.test:stop")
	mustUpgrade(t, d)
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(st.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Error("the session goes on")
	}
	d.gone = true
	var status unix.WaitStatus
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = peer.Until(ctx, func() error {
		if pid, err := unix.Wait4(st.PID, &status, unix.WNOHANG, nil); pid != st.PID {
			return fmt.Errorf("PID %d has not ended: %v", st.PID, err)
		}
		return nil
	})
	if err != nil || status.ExitStatus() != 0 {
		t.Errorf("the end: %v, status %d", err, status.ExitStatus())
	}
	if _, err := os.Stat(filepath.Join(d.dir, "control.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the control socket is left: %v", err)
	}
}
