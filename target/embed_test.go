// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// embed returns a Server of options without a configuration, closed at the end of the test.
func embed(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := New(o)
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

// ramUnit makes a disk with zero options.
func ramUnit(t *testing.T) *scsi.LogicalUnit {
	t.Helper()
	store, err := storage.NewRAM(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return lu
}

// addTarget adds a target with a disk, LUN 1.
func addTarget(t *testing.T, s *Server, name string) {
	t.Helper()
	if err := s.AddTarget(&config.Target{Name: name}, map[uint16]*scsi.LogicalUnit{1: ramUnit(t)}); err != nil {
		t.Fatal(err)
	}
}

// listen adds a portal and returns its address.
func listen(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = s.AddPortal(l, 0, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// dialTarget logs in to a target.
func dialTarget(t *testing.T, address, name string) (*initiator.Session, error) {
	t.Helper()
	session, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: name})
	if err == nil {
		t.Cleanup(func() { session.Close() })
	}
	return session, err
}

// TestZeroOptions makes a Server of nothing, and gives it one target: that is served, with
// its disk online, to whoever writes its name in whatever case.
func TestZeroOptions(t *testing.T) {
	const name = "iqn.2026-11.test:Example-A"
	s := embed(t, Options{})
	s.Serve()
	s.Serve() // accepts no second time
	addTarget(t, s, name)
	address := listen(t, s) // after Serve
	for _, n := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
		session, err := dialTarget(t, address, n)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
	st := s.Status()
	if got := []any{st.Targets[0].Name, st.Targets[0].TID, st.Portals[0].Group}; !slices.Equal(got, []any{strings.ToLower(name), 1, uint16(1)}) {
		t.Errorf("%v", got)
	}
	if err := s.AddTarget(&config.Target{Name: strings.ToUpper(name)}, nil); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("added twice: %v", err)
	}
}

// TestTargetsWithoutNumbers adds targets that have no TID: each gets one, and no two disks
// are known by the same numbers.
func TestTargetsWithoutNumbers(t *testing.T) {
	s := embed(t, Options{})
	addTarget(t, s, "iqn.2026-11.test:a")
	if err := s.AddTarget(&config.Target{Name: "iqn.2026-11.test:b", TID: 3}, map[uint16]*scsi.LogicalUnit{1: ramUnit(t)}); err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, "iqn.2026-11.test:c")
	addTarget(t, s, "iqn.2026-11.test:d")
	var tids []int
	seen := make(map[string]string)
	for _, target := range s.Status().Targets {
		tids = append(tids, target.TID)
		disk := target.LUNs[1]
		for _, id := range []string{"serial " + disk.Serial, "SCSI ID " + disk.SCSIID, "NAA " + disk.NAA} {
			if seen[id] != "" {
				t.Errorf("%s and %s are both known by %q", seen[id], target.Name, id)
			}
			seen[id] = target.Name
		}
	}
	if d := cmp.Diff([]int{1, 3, 2, 4}, tids); d != "" {
		t.Errorf("TIDs (-want +got):\n%s", d)
	}
	err := s.AddTarget(&config.Target{Name: "iqn.2026-11.test:e", TID: 3}, nil)
	if want := "can't add target iqn.2026-11.test:e: 3 is the TID of target iqn.2026-11.test:b; leave it 0 for a free one"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestTargetOpensItsUnits adds a target whose configuration has logical units, one of
// which can't be opened at first: nothing is left of it then.
func TestTargetOpensItsUnits(t *testing.T) {
	path := t.TempDir() + "/disk" // is removed after the Server has closed it
	s := embed(t, Options{})
	conf := config.Target{Name: "iqn.2026-11.test:a", LUNs: []config.LUN{{Number: 1, Backend: "ram", Options: storage.Options{Size: 1 << 20}}, {Number: 2, Options: storage.Options{Path: path, Size: 1 << 20}}}}
	before := config.Target{Name: conf.Name, LUNs: slices.Clone(conf.LUNs)}
	if err := s.AddTarget(&conf, nil); err == nil || !strings.Contains(err.Error(), "LUN 2") || len(s.Status().Targets) > 0 {
		t.Fatalf("a file that is missing: %v", err)
	}
	if d := cmp.Diff(before, conf); d != "" {
		t.Errorf("AddTarget has changed what it was given: %s", d)
	}
	conf.LUNs[1].Create = true
	own := ramUnit(t)
	if err := s.AddTarget(&conf, map[uint16]*scsi.LogicalUnit{2: own}); err == nil || !strings.Contains(err.Error(), "the number is taken") {
		t.Fatalf("two logical units with one number: %v", err)
	}
	// own is the caller's still, and what AddTarget had opened is free again.
	if err := s.AddTarget(&conf, map[uint16]*scsi.LogicalUnit{3: own}); err != nil {
		t.Fatal(err)
	}
	var numbers []uint16
	for _, l := range s.Status().Targets[0].LUNs {
		numbers = append(numbers, l.LUN)
	}
	if d := cmp.Diff([]uint16{0, 1, 2, 3}, numbers); d != "" {
		t.Errorf("LUNs (-want +got):\n%s", d)
	}
}

// TestConfigIsTheCallers makes two Servers of one configuration: neither changes it, and
// what is wrong in it is an error that says where.
func TestConfigIsTheCallers(t *testing.T) {
	conf := config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:A", LUNs: []config.LUN{{Number: 1, Backend: "ram", Options: storage.Options{Size: 1 << 20}}}}}}
	for range 2 {
		if st := embed(t, Options{Config: &conf}).Status(); st.Targets[0].Name != "iqn.2026-11.test:a" || !st.Targets[0].LUNs[1].Online {
			t.Errorf("%+v", st.Targets[0])
		}
	}
	if conf.Targets[0].TID != 0 || conf.Targets[0].LUNs[0].BlockSize != 0 || conf.Targets[0].Name != "iqn.2026-11.test:A" {
		t.Errorf("New has changed what it was given: %+v", conf.Targets[0])
	}
	conf.Targets[0].Name = ""
	if _, err := New(Options{Config: &conf}); err == nil || err.Error() != "targets[0].name: is missing" {
		t.Errorf("%v", err)
	}
}

// TestAfterTheEnd changes a Server that is closed.
func TestAfterTheEnd(t *testing.T) {
	s := embed(t, Options{})
	addTarget(t, s, "iqn.2026-11.test:a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lu := ramUnit(t)
	for what, err := range map[string]error{
		"AddTarget": s.AddTarget(&config.Target{Name: "iqn.2026-11.test:b"}, nil),
		"Attach":    s.Attach("iqn.2026-11.test:a", 2, lu),
		"Detach":    s.Detach("iqn.2026-11.test:a", 1),
		"AddPortal": s.AddPortal(l, 1, ""),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Serve()
	s.Thaw()
	if err := errors.Join(lu.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// plainListener is a listener with no more than the methods that it needs.
type plainListener struct{ net.Listener }

// TestAnyListener serves on a listener that is no *net.TCPListener, and whose Accept can't
// be given a deadline. A connection that comes during a freeze is served after it.
func TestAnyListener(t *testing.T) {
	s := embed(t, Options{})
	addTarget(t, s, "iqn.2026-11.test:a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddPortal(plainListener{l}, 1, ""); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	first, err := dialTarget(t, l.Addr().String(), "iqn.2026-11.test:a")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.Thaw()
	second, err := initiator.Dial(t.Context(), initiator.Options{
		Address: l.Addr().String(), TargetName: "iqn.2026-11.test:a", InitiatorName: "iqn.2026-11.test:second",
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
}

// TestServeTwice has a listener count who waits in its Accept: one accepts, however often
// Serve is called.
func TestServeTwice(t *testing.T) {
	s := embed(t, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &countingListener{TCPListener: l.(*net.TCPListener)}
	if err := s.AddPortal(c, 1, ""); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	s.Serve()
	if err := s.Close(); err != nil { // every accept loop has begun and ended
		t.Error(err)
	}
	if n := c.accepts.Load(); n != 1 {
		t.Errorf("Accept was called %d times", n)
	}
}

// countingListener counts the calls of Accept.
type countingListener struct {
	*net.TCPListener
	accepts atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	l.accepts.Add(1)
	return l.TCPListener.Accept()
}

// TestOtherConnections has a listener that accepts what is no TCP connection: it is
// closed, and the portal goes on.
func TestOtherConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := embed(t, Options{})
	addTarget(t, s, "iqn.2026-11.test:a")
	pipes := &pipeListener{Listener: l}
	if err := s.AddPortal(pipes, 1, ""); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	for range 2 {
		if _, err := dialTarget(t, l.Addr().String(), "iqn.2026-11.test:a"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := pipes.far.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from a connection that is to be closed", n)
	}
}

// pipeListener accepts a pipe first.
type pipeListener struct {
	net.Listener
	far net.Conn
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if l.far == nil {
		var near net.Conn
		near, l.far = net.Pipe()
		return near, nil
	}
	return l.Listener.Accept()
}
