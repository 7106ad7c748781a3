// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

// TestClosedPortalGroup hands sessions in two portal groups over to a server where one of
// them is gone: its session is asked to log out, and the other stays.
func TestClosedPortalGroup(t *testing.T) {
	const iqn = "iqn.2026-11.test:groups"
	tests := map[string]struct {
		before, after []uint16 // the target's groups
		portals       []uint16 // those that have a portal afterwards
	}{
		"the target is taken out of it": {[]uint16{1, 2}, []uint16{1}, []uint16{1, 2}},
		"it has no portal any more":     {nil, nil, []uint16{1}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			server := func(successor bool, groups, portals []uint16) (s *Server, addresses []string) {
				t.Helper()
				conf := &config.Config{}
				for _, tag := range portals {
					address := fmt.Sprintf("127.0.0.1:%d", 10000+tag) // it is not used
					conf.PortalGroups = append(conf.PortalGroups, config.PortalGroup{Tag: tag, Portals: []config.Portal{{Address: address}}})
				}
				conf.Targets = []config.Target{{Name: iqn, PortalGroups: groups, LUNs: []config.LUN{{Number: 1, Backend: "ram", Options: storage.Options{Size: 1 << 20}}}}}
				s, _ = newServer(t, Options{Config: conf, Successor: successor})
				for _, tag := range portals {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					if err := s.AddPortal(l, tag, ""); err != nil {
						t.Fatal(err)
					}
					addresses = append(addresses, l.Addr().String())
				}
				return s, addresses
			}
			old, addresses := server(false, tc.before, []uint16{1, 2})
			next, _ := server(true, tc.after, tc.portals)
			old.Serve()
			var sessions []*initiator.Session
			for _, address := range addresses {
				c, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: iqn, InitiatorName: "iqn.2026-11.test:i"})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				sessions = append(sessions, c)
			}
			handOver(t, old, next)
			select {
			case <-sessions[1].Done():
			case <-time.After(patience):
				t.Error("the session in the group that is gone goes on")
			}
			if err := sessions[0].Settle(t.Context(), initiator.LUN(1)); err != nil {
				t.Errorf("the other session: %v", err)
			}
		})
	}
}

// stuckListener does not heed its deadline, as one whose socket was made blocking.
type stuckListener struct {
	*net.TCPListener
	stuck atomic.Bool
}

func (l *stuckListener) SetDeadline(t time.Time) error {
	if l.stuck.Load() {
		return nil
	}
	return l.TCPListener.SetDeadline(t)
}

// A portal that does not stop accepting fails a freeze in time, and accepts afterwards as before.
func TestFreezeOfAStuckPortal(t *testing.T) {
	s := embed(t, Options{})
	addTarget(t, s, iqnA)
	inner, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &stuckListener{TCPListener: inner}
	if err := s.AddPortal(l, 1, ""); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	login := func() {
		t.Helper()
		session, err := initiator.Dial(t.Context(), initiator.Options{Address: l.Addr().String(), TargetName: iqnA})
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
	}
	login()
	l.stuck.Store(true)
	for range 2 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("the limit"))
		err := s.Freeze(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "a connection is still being accepted at "+l.Addr().String()+": the limit") {
			t.Fatalf("Freeze: %v", err)
		}
		login()
	}
	if list := s.accepting(); len(list) != 1 {
		t.Errorf("loops accept at %q", list)
	}
	l.stuck.Store(false)
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Thaw()
	login()
}
