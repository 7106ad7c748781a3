// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

func TestServes(t *testing.T) {
	r := startRig(t)
	s := r.dial("127.0.0.1", r.target)
	lun := initiator.LUN(0)
	if err := s.Settle(t.Context(), lun); err != nil {
		t.Fatal(err)
	}
	if tag := s.Params().TargetPortalGroupTag; tag != 1 {
		t.Errorf("portal group %d", tag)
	}
	if c, err := s.ReadCapacity(t.Context(), lun); err != nil || c != (initiator.Capacity{Blocks: volumeSize / 512, BlockSize: 512}) {
		t.Errorf("capacity %+v, %v", c, err)
	}
	want, got := bytes.Repeat([]byte{5}, 4096), make([]byte, 4096)
	var cmd initiator.Command
	err := s.Do(t.Context(), cmd.Write16(lun, 8, 8, want, 0))
	if err == nil {
		err = s.Do(t.Context(), cmd.Read16(lun, 8, 8, got, 0))
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("writing and reading: %v", err)
	}
	st := r.Stats()
	if st.TotalReadTime <= 0 || st.TotalWriteTime <= 0 {
		t.Errorf("times %d and %d", st.TotalReadTime, st.TotalWriteTime)
	}
	delete(st.SCSIIOCount, 0) // Settle's
	wantStats := scsi.Stats{IsClientConnected: true, SCSIIOCount: map[int]int64{0x88: 1, 0x8a: 1, 0x9e: 1},
		ReadIOPS: 1, TotalReadBlockCount: 4096, WriteIOPS: 1, TotalWriteBlockCount: 4096}
	if d := cmp.Diff(wantStats, st, cmpopts.IgnoreFields(scsi.Stats{}, "TotalReadTime", "TotalWriteTime")); d != "" {
		t.Errorf("statistics (-want +got):\n%s", d)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// Portals are those of the configuration: discovery tells them, each has its
// portal group, and whoever comes to another address can't log in.
func TestPortals(t *testing.T) {
	r := startRig(t)
	discover := func() []initiator.Portal {
		t.Helper()
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address("127.0.0.3"), Discovery: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		list, err := s.SendTargets(t.Context(), "All")
		if err != nil {
			t.Error(err)
		}
		return list
	}
	portals := func(one, two string) []initiator.Portal {
		return []initiator.Portal{{Target: r.target, Address: r.address(one), Group: "1"}, {Target: r.target, Address: r.address(two), Group: "2"}}
	}
	if d := cmp.Diff(portals("127.0.0.1", "127.0.0.2"), discover()); d != "" {
		t.Errorf("discovery (-want +got):\n%s", d)
	}
	if tag := r.dial("127.0.0.2", r.target).Params().TargetPortalGroupTag; tag != 2 {
		t.Errorf("portal group %d", tag)
	}
	var refused *initiator.LoginError
	if _, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address("127.0.0.3"), TargetName: r.target}); !errors.As(err, &refused) {
		t.Errorf("login at an address that is no portal: %v", err)
	}
	r.SetClusterIP("no address")
	r.SetClusterIP("192.0.2.7")
	if d := cmp.Diff(portals("192.0.2.7", "192.0.2.7"), discover()); d != "" {
		t.Errorf("with a cluster address (-want +got):\n%s", d)
	}
}

func TestSecondHostIsBlocked(t *testing.T) {
	r := startRig(t)
	first := r.dial("127.0.0.1", r.target)
	r.EnableBlockMultipleHostLogin()
	from := func(host string) error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address("127.0.0.1"), TargetName: r.target, DialContext: dialer.DialContext})
		if err != nil {
			return err
		}
		return s.Logout(t.Context())
	}
	if err := from("127.0.0.9"); err == nil {
		t.Error("a second host is let in")
	}
	if err := from("127.0.0.1"); err != nil {
		t.Errorf("the first host is kept out: %v", err)
	}
	if err := first.Ping(t.Context(), 0, true, nil); err != nil {
		t.Error(err)
	}
}

func TestResizeAndLUNMap(t *testing.T) {
	const capacityChanged, lunsChanged = 0x2a09, 0x3f0e
	r := startRig(t)
	s := r.dial("127.0.0.1", r.target)
	lun := initiator.LUN(0)
	if err := s.Settle(t.Context(), lun); err != nil {
		t.Fatal(err)
	}
	attention := func(want uint16) {
		t.Helper()
		var cmd initiator.Command
		cmd.LUN = lun // TEST UNIT READY
		err := s.Do(t.Context(), &cmd)
		if _, code := initiator.DecodeSense(cmd.Sense); err == nil || code != want {
			t.Errorf("unit attention %#x, %v, want %#x", code, err, want)
		}
	}
	if err := r.Resize(2 * volumeSize); err != nil {
		t.Fatal(err)
	}
	attention(capacityChanged)
	if c, err := s.ReadCapacity(t.Context(), lun); err != nil || c.Blocks != 2*volumeSize/512 {
		t.Errorf("capacity %+v, %v", c, err)
	}
	expect := func(want ...uint64) {
		t.Helper()
		r.RereadTargetLUNMap()
		attention(lunsChanged)
		got, err := s.ReportLUNs(t.Context())
		for i := range want {
			want[i] = initiator.LUN(uint16(want[i]))
		}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("LUNs: %v (-want +got):\n%s", err, d)
		}
	}
	addVolume(t, r.target, 5)
	expect(0, 5)
	addVolume(t, r.target, 5) // another one
	expect(0, 5)
	scsi.DelLUNMapping(scsi.LUNMapping{TargetName: r.target, LUN: 5})
	expect(0)
	second := r.target + "2"
	addVolume(t, second, 3)
	if err := r.NewTarget(second, targetConfig(second, r.port)); err != nil {
		t.Fatal(err)
	}
	if err := r.dial("127.0.0.1", second).Settle(t.Context(), initiator.LUN(3)); err != nil {
		t.Errorf("a target added later: %v", err)
	}
}

func TestWhatCanNotBeServed(t *testing.T) {
	d := newDriver(t)
	const name = "iqn.2026-11.test:bad"
	portal := func(s string) *config.Config {
		c := targetConfig(name, 1)
		c.ISCSIPortals[1].Portal = s
		return c
	}
	tags := func(tpgts map[string][]uint64) *config.Config {
		c := targetConfig(name, 1)
		c.ISCSITargets[name] = config.ISCSITarget{TPGTs: tpgts}
		return c
	}
	for want, c := range map[string]*config.Config{
		"no configuration":                   nil,
		"nobody could log in":                {},
		"is not an IP address":               portal("host.example:3260"),
		"is in portal groups 1 and 2":        portal("127.0.0.1:1"),
		"is not a number from 0 to 65534":    tags(map[string][]uint64{"x": {0}}),
		"has portal 2, counted from 0, and ": tags(map[string][]uint64{"1": {2}}),
	} {
		if err := d.NewTarget(name, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewTarget: %v, want %q", err, want)
		}
	}
	if err := d.NewTarget(name, portal(":2")); err != nil {
		t.Fatal(err)
	}
	for want, name := range map[string]string{"is there already": strings.ToUpper(name), "in 1 in another target": name + "2"} {
		c := targetConfig(name, 1)
		c.ISCSITargets[name] = config.ISCSITarget{TPGTs: map[string][]uint64{"3": {0}}}
		if err := d.NewTarget(name, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewTarget: %v, want %q", err, want)
		}
	}
	if err := scsi.AddLUNMapping(scsi.LUNMapping{TargetName: name, LUN: 1, DeviceID: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	if err := d.Run(freePort(t)); err == nil || !strings.Contains(err.Error(), "LUN 1: gotgt's LUN map has no device") {
		t.Errorf("Run: %v", err)
	}
	if err := d.Run(65536); err == nil {
		t.Error("a port beyond all ports")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Run(0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := d.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after Close: %v", err)
	}
	if err := d.NewTarget("iqn.2026-11.test:late", targetConfig("iqn.2026-11.test:late", 1)); err == nil {
		t.Error("a target is added to what is closed")
	}
}

// Initiators log in and out while commands run and the program asks for
// statistics: what gotgt's own port can't stand.
func TestLoginsWhileCommandsRun(t *testing.T) {
	r := startRig(t)
	s := r.dial("127.0.0.1", r.target)
	lun := initiator.LUN(0)
	if err := s.Settle(t.Context(), lun); err != nil {
		t.Fatal(err)
	}
	var logins, commands sync.WaitGroup
	stop := make(chan struct{})
	for n := range uint64(4) {
		commands.Go(func() {
			var cmd initiator.Command
			buf := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, c := range []*initiator.Command{cmd.Write16(lun, n*8, 8, buf, 0), new(initiator.Command).Read16(lun, n*8, 8, buf, 0)} {
					if err := s.Do(t.Context(), c); err != nil {
						t.Error(err)
						return
					}
				}
				r.Stats()
			}
		})
	}
	for range 4 {
		logins.Go(func() {
			for range 25 {
				s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address("127.0.0.2"), TargetName: r.target})
				if err == nil {
					err = errors.Join(s.Settle(t.Context(), lun), s.Logout(t.Context()))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	logins.Wait()
	close(stop)
	commands.Wait()
}
