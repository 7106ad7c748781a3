// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// TestZeroOptions starts what has nothing to serve, in a process that can't be replaced.
func TestZeroOptions(t *testing.T) {
	g, err := Start(t.Context(), nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Upgrade(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "supervisor.Start") || r.Error != err.Error() {
		t.Errorf("an upgrade without a process: %+v, %v", r, err)
	}
	if h := g.History(); len(h) != 1 || h[0].Error != r.Error {
		t.Errorf("history: %+v", h)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOrder has each step note when it comes.
func TestOrder(t *testing.T) {
	const name = "iqn.2026-11.test:a"
	var order []string
	var address string
	g, err := Start(t.Context(), nil, Options{
		Log: quiet,
		Prepare: func() (target.Options, []string, error) {
			order = append(order, "prepare")
			return target.Options{Config: &config.Config{Targets: []config.Target{{Name: name}}}}, nil, nil
		},
		Open: func(_ context.Context, s *target.Server) error {
			order = append(order, "open")
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			address = l.Addr().String()
			return s.AddPortal(l, 1, "")
		},
		Serving: func(g *Generation) string {
			order = append(order, "serving")
			s, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: name})
			if err == nil {
				err = s.Logout(t.Context())
			}
			if err != nil {
				t.Errorf("it does not serve: %v", err)
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "prepare open serving" {
		t.Error(got)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFailures has each step fail: nothing is left, not the listener either.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	missing := config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:a", LUNs: []config.LUN{{Number: 1, Options: storage.Options{Path: "/does/not/exist"}}}}}}
	for name, test := range map[string]struct {
		o    Options
		want error
	}{
		"prepare": {Options{Prepare: func() (target.Options, []string, error) { return target.Options{}, nil, broken }}, broken},
		"new":     {Options{Prepare: func() (target.Options, []string, error) { return target.Options{Config: &missing}, nil, nil }}, fs.ErrNotExist},
		"open": {Options{Open: func(_ context.Context, s *target.Server) error {
			return errors.Join(s.AddPortal(l, 1, ""), broken)
		}}, broken},
	} {
		test.o.Log = quiet
		if g, err := Start(t.Context(), nil, test.o); g != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener: %v", err)
	}
}

// TestPanicOfSuccessor is a failure like any other: the predecessor is told and goes on.
func TestPanicOfSuccessor(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends[i] = c.(*net.UnixConn)
	}
	g := &Generation{log: quiet, options: Options{Prepare: func() (target.Options, []string, error) { panic("out of range") }}}
	if err := g.start(t.Context(), ends[0]); err == nil || !strings.Contains(err.Error(), "panic: out of range") || !strings.Contains(err.Error(), "generation_test.go:") {
		t.Errorf("error: %v", err)
	}
	if _, err := ends[0].Write([]byte("heard")); err != nil {
		t.Errorf("the predecessor can't be told: %v", err)
	}
}

// TestUpgradeOfPID1 refuses what would end the container.
func TestUpgradeOfPID1(t *testing.T) {
	g := &Generation{log: quiet, process: new(supervisor.Process)}
	if err := g.refusal(2); err != nil {
		t.Errorf("PID 2: %v", err)
	}
	if err := g.refusal(1); err == nil || !strings.Contains(err.Error(), "upgraded run") {
		t.Errorf("PID 1: %v", err)
	}
}

func TestNilGeneration(t *testing.T) {
	var g *Generation
	if _, err := g.Upgrade(t.Context(), nil); !errors.Is(err, target.ErrClosed) {
		t.Errorf("Upgrade: %v", err)
	}
	if err := g.Stop(t.Context()); err != nil || g.Server() != nil || g.History() != nil {
		t.Errorf("%v, %v, %v", err, g.Server(), g.History())
	}
}
