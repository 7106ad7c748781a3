// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
	_ "github.com/gotgtd/gotgtd/target/storage/plugin" // the driver "gotgt"
)

// volume is a plug-in whose blocks are in memory that all who open it share.
// Reading and writing its first block panics.
type volume struct {
	mu    sync.Mutex
	data  []byte
	calls []string
}

func (v *volume) called(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = append(v.calls, name)
}

// takeCalls returns what was called since the last time.
func (v *volume) takeCalls() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	calls := v.calls
	v.calls = nil
	return calls
}

func (v *volume) Open(*api.SCSILu, string) error         { v.called("open"); return nil }
func (v *volume) Close(*api.SCSILu) error                { v.called("close"); return nil }
func (v *volume) Init(_ *api.SCSILu, o string) error     { v.called("init " + o); return nil }
func (v *volume) Exit(*api.SCSILu) error                 { v.called("exit"); return nil }
func (v *volume) Size(*api.SCSILu) uint64                { return uint64(len(v.data)) }
func (v *volume) DataSync(int64, int64) error            { v.called("sync"); return nil }
func (v *volume) DataAdvise(int64, int64, uint32) error  { return nil }
func (v *volume) Unmap([]api.UnmapBlockDescriptor) error { v.called("unmap"); return nil }

func (v *volume) Read(off, n int64) ([]byte, error) {
	if off == 0 {
		panic("the first block is bad")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return bytes.Clone(v.data[off : off+n]), nil
}

func (v *volume) Write(p []byte, off int64) error {
	if off == 0 {
		panic("the first block is bad")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	copy(v.data[off:], p)
	return nil
}

// pluginServer returns a server with LUN 1 in a plug-in, and its log.
func pluginServer(t *testing.T, o Options, lun config.LUN) (*Server, *bytes.Buffer) {
	t.Helper()
	lun.Number, lun.Path, lun.Parameters = 1, "pool/disk", map[string]string{"id": "admin"}
	o.Config = &config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:plugin", LUNs: []config.LUN{lun}}}}
	return newServer(t, o)
}

// dial serves, logs in, and takes the unit attentions of LUN 1.
func dial(t *testing.T, s *Server) *initiator.Session {
	t.Helper()
	session := login(t, s)
	if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	return session
}

// login serves and logs in.
func login(t *testing.T, s *Server) *initiator.Session {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = s.AddPortal(l, 1, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	o := initiator.Options{Address: l.Addr().String(), TargetName: s.conf.Targets[0].Name}
	if users := s.conf.Targets[0].Auth.Users; len(users) > 0 {
		o.CHAP = initiator.CHAP{User: users[0].User, Secret: string(users[0].Secret)}
	}
	session, err := initiator.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

func TestPluginPanicIsMediumError(t *testing.T) {
	v := &volume{data: make([]byte, 1<<20)}
	scsi.RegisterBackingStore(t.Name(), func() (api.BackingStore, error) { return v, nil })
	server, log := pluginServer(t, Options{}, config.LUN{Backend: "gotgt:" + t.Name()})
	s := dial(t, server)
	const mediumError = 3
	lun := initiator.LUN(1)
	var cmd initiator.Command
	buf := bytes.Repeat([]byte{7}, 512)
	for _, c := range []*initiator.Command{new(initiator.Command).Read16(lun, 0, 1, make([]byte, 512), 0), new(initiator.Command).Write16(lun, 0, 1, buf, 0)} {
		if err := s.Do(t.Context(), c); err == nil {
			t.Errorf("%v succeeded", c)
		}
		if key, code := initiator.DecodeSense(c.Sense); key != mediumError {
			t.Errorf("%v ended in sense %x/%04x", c, key, code)
		}
	}
	if err := s.Do(t.Context(), cmd.Write16(lun, 1, 1, buf, 0)); err != nil {
		t.Errorf("after the panics: %v", err)
	}
	got := make([]byte, 512)
	if err := s.Do(t.Context(), cmd.Read16(lun, 1, 1, got, 0)); err != nil || !bytes.Equal(got, buf) {
		t.Errorf("reading what was written: %v", err)
	}
	if err := errors.Join(s.Logout(t.Context()), server.Close()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "the plug-in panicked: the first block is bad (target.(*volume)."); n != 2 {
		t.Errorf("%d lines of the log tell of panics, want 2:\n%s", n, log)
	}
}

// An initiator sees that a plug-in frees space only if the configuration says
// that it does.
func TestPluginAdvertisesWhatItCan(t *testing.T) {
	for _, test := range []struct {
		plugin string
		thin   *bool
		want   bool
	}{{"own", nil, false}, {"own", new(true), true}, {"null", new(true), false}} {
		conf := config.LUN{Backend: "gotgt:" + test.plugin, Options: storage.Options{BlockOptions: storage.BlockOptions{Thin: test.thin}}}
		if test.plugin == "null" {
			conf.Size = 1 << 20
		} else {
			conf.Backend += t.Name()
			v := &volume{data: make([]byte, 1<<20)}
			scsi.RegisterBackingStore("own"+t.Name(), func() (api.BackingStore, error) { return v, nil })
		}
		server, _ := pluginServer(t, Options{}, conf)
		s := dial(t, server)
		var cmd initiator.Command
		cmd.LUN, cmd.In = initiator.LUN(1), make([]byte, 32)
		cmd.CDB = [16]byte{0: 0x9e, 1: 0x10, 13: 32} // READ CAPACITY (16)
		if err := s.Do(t.Context(), &cmd); err != nil {
			t.Fatal(err)
		}
		if lbpme := cmd.In[14]&0x80 != 0; lbpme != test.want {
			t.Errorf("%s, thin %v: LBPME is %v", conf.Backend, test.thin, lbpme)
		}
		if err := s.Do(t.Context(), cmd.Unmap(initiator.LUN(1), initiator.Range{LBA: 8, Blocks: 8})); (err == nil) != test.want {
			t.Errorf("%s, thin %v: UNMAP: %v", conf.Backend, test.thin, err)
		}
	}
}

// keeper is a State that counts how often it was handed over.
type keeper struct{ state string }

func (k *keeper) Save() ([]byte, error) { return []byte(k.state + "+"), nil }

func (k *keeper) Load(b []byte) error { k.state = string(b); return nil }

// What a plug-in was told to write, it is told to sync before the pause, and in
// it, before the successor reads, and the predecessor says nothing to it afterwards but to close. An
// embedding program's state comes along.
func TestPluginMoves(t *testing.T) {
	v := &volume{data: make([]byte, 1<<20)}
	scsi.RegisterBackingStore(t.Name(), func() (api.BackingStore, error) { return v, nil })
	conf := config.LUN{Backend: "gotgt:" + t.Name()}
	first, second := &keeper{state: "a"}, &keeper{}
	old, _ := pluginServer(t, Options{State: first}, conf)
	s := dial(t, old)
	buf := bytes.Repeat([]byte{9}, 512)
	var cmd initiator.Command
	if err := s.Do(t.Context(), cmd.Write16(initiator.LUN(1), 1, 1, buf, 0)); err != nil {
		t.Fatal(err)
	}
	next, _ := pluginServer(t, Options{State: second, Successor: true}, conf)
	v.takeCalls()
	handOver(t, old, next)
	next.Serve()
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	if calls, want := v.takeCalls(), []string{"sync", "sync", "close", "exit"}; !slices.Equal(calls, want) {
		t.Errorf("calls during the handoff: %q, want %q", calls, want)
	}
	if second.state != "a+" {
		t.Errorf("the state has become %q", second.state)
	}
	got := make([]byte, 512)
	if err := s.Do(t.Context(), cmd.Read16(initiator.LUN(1), 1, 1, got, 0)); err != nil || !bytes.Equal(got, buf) {
		t.Errorf("the same session reads: %v", err)
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}
