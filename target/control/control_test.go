// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDaemon has a status, and an upgrade that the test makes.
type fakeDaemon struct {
	status  Status
	level   LogLevel
	upgrade func(context.Context) (handoff.Report, error)
	end     func(ctx context.Context, tsih uint16, rejectFor time.Duration) (target.SessionEnd, error)
}

func (d *fakeDaemon) Status() Status { return d.status }

func (d *fakeDaemon) Diagnosis() Diagnosis {
	return Diagnosis{Goroutines: "goroutine 1", Metrics: "# HELP"}
}

func (d *fakeDaemon) LogLevel() LogLevel { return d.level }

func (d *fakeDaemon) SetLogLevel(_ context.Context, l LogLevel) error {
	if l.Level == "chatty" {
		return fmt.Errorf("%w: chatty", ErrLevel)
	}
	d.level = l
	return nil
}

func (d *fakeDaemon) Upgrade(ctx context.Context, _ bool) (handoff.Report, error) {
	return d.upgrade(ctx)
}
func (d *fakeDaemon) EndSession(ctx context.Context, tsih uint16, rejectFor time.Duration) (target.SessionEnd, error) {
	return d.end(ctx, tsih, rejectFor)
}

func (d *fakeDaemon) Change(_ context.Context, ops []overlay.Operation) error {
	if len(ops) > 0 {
		return overlay.ErrNoTarget
	}
	return nil
}

func (d *fakeDaemon) Running() *plan.Running {
	return &plan.Running{Targets: []plan.Target{{Settings: config.Settings{"alias": "a"}, LUNs: []plan.LUN{{Settings: config.Settings{}}}}}, Sessions: []plan.Session{{}}}
}

func (d *fakeDaemon) Config(secrets bool) (Config, error) {
	return Config{File: "/etc/a.yaml", Revision: "1", Config: fmt.Sprintf("secrets: %v\n", secrets)}, nil
}

func (d *fakeDaemon) Plan(p Proposal) (Planned, error) {
	if p.Config == "" {
		return Planned{}, fmt.Errorf("%w: nothing in it", ErrInvalid)
	}
	lun := uint16(1)
	return NewPlanned(&plan.Plan{Changes: []plan.Change{{Op: "+", Target: "iqn.2026-11.test:a", LUN: &lun, What: p.Config, Refused: "no"}}}), nil
}

func (d *fakeDaemon) Apply(_ context.Context, p Proposal) (Planned, error) {
	planned, err := d.Plan(p)
	if err == nil && p.Revision != "1" {
		err = ErrRevision
	}
	planned.Applied, planned.Report = err == nil, &handoff.Report{Generation: 2, Phases: []handoff.Phase{}}
	return planned, err
}

// testServer serves a daemon on a socket of its own.
func testServer(t *testing.T, d *fakeDaemon) (*Server, *Client) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "gotgtd.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, d)
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, NewClient(socket)
}

func TestStatus(t *testing.T) {
	want := Status{
		Version: "1.0", Generation: 3, PID: 42,
		Upgrades: []handoff.Report{{Generation: 3, Pause: time.Millisecond, Phases: []handoff.Phase{{Name: "freeze", Duration: 1500}}}},
		Status: target.Status{
			Portals: []target.PortalStatus{}, Sessions: []target.SessionStatus{},
			Targets: []target.TargetStatus{{TID: 1, Name: "iqn.2026-11.test:a", LUNs: []target.LUNStatus{{LUN: 1, UnitInfo: scsi.UnitInfo{Size: 1 << 40}}}}},
		},
	}
	_, c := testServer(t, &fakeDaemon{status: want})
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }), cmp.Exporter(nil)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUpgrade(t *testing.T) {
	d := &fakeDaemon{}
	_, c := testServer(t, d)
	for _, timeout := range []time.Duration{0, time.Minute} {
		d.upgrade = func(ctx context.Context) (handoff.Report, error) {
			at, bounded := ctx.Deadline()
			if bounded != (timeout > 0) || bounded && time.Until(at) > timeout {
				t.Errorf("with a timeout of %v the deadline is %v, %v", timeout, at, bounded)
			}
			return handoff.Report{Generation: 2, NewPID: 43}, nil
		}
		r, err := c.Upgrade(t.Context(), timeout)
		if err != nil || r.Generation != 2 || r.NewPID != 43 {
			t.Errorf("report %+v, error %v", r, err)
		}
	}
}

func TestUpgradeFailure(t *testing.T) {
	_, c := testServer(t, &fakeDaemon{upgrade: func(context.Context) (handoff.Report, error) {
		return handoff.Report{Generation: 2, Error: "no room"}, errors.New("no room")
	}})
	r, err := c.Upgrade(t.Context(), 0)
	if err == nil || err.Error() != "no room" || r == nil || r.Error != "no room" || r.Generation != 2 {
		t.Errorf("report %+v, error %v", r, err)
	}
}

// TestUpgradeTimeout has a daemon that heeds its context.
func TestUpgradeTimeout(t *testing.T) {
	_, c := testServer(t, &fakeDaemon{upgrade: func(ctx context.Context) (handoff.Report, error) {
		<-ctx.Done()
		return handoff.Report{}, context.Cause(ctx)
	}})
	if _, err := c.Upgrade(t.Context(), time.Millisecond); err == nil || err.Error() != "not done within the 1ms that were given" {
		t.Errorf("error %v", err)
	}
}

// TestUpgradeOutlivesItsClient has a client that goes while the upgrade runs.
func TestUpgradeOutlivesItsClient(t *testing.T) {
	running, cancelled := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	_, c := testServer(t, &fakeDaemon{upgrade: func(ctx context.Context) (handoff.Report, error) {
		close(running)
		<-cancelled
		done <- ctx.Err()
		return handoff.Report{}, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-running
		cancel()
	}()
	if r, err := c.Upgrade(ctx, 0); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("report %+v, error %v", r, err)
	}
	close(cancelled)
	if err := <-done; err != nil {
		t.Errorf("the upgrade was ended with its client: %v", err)
	}
}

// TestClientFollowsSuccessor asks a process that hands over meanwhile, as the
// daemon does, and one that has left.
func TestClientFollowsSuccessor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "gotgtd.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	inherited := inherit(t, l)
	servers := make(chan *Server, 2)
	servers <- Serve(l, &fakeDaemon{status: Status{Generation: 1}, upgrade: func(context.Context) (handoff.Report, error) {
		old := <-servers
		old.Leave()
		servers <- Serve(inherited, &fakeDaemon{
			status:  Status{Generation: 2},
			upgrade: func(context.Context) (handoff.Report, error) { return handoff.Report{Generation: 3}, nil },
		})
		servers <- old
		return handoff.Report{}, ErrLeft
	}})
	held, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if answer := askRaw(t, held); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("the first process says %q", answer)
	}
	c := NewClient(socket)
	if r, err := c.Upgrade(t.Context(), 0); err != nil || r.Generation != 3 {
		t.Errorf("report %+v, error %v", r, err)
	}
	if answer := askRaw(t, held); !strings.HasPrefix(answer, "HTTP/1.1 503 ") {
		t.Errorf("the process that has left says %q", answer)
	}
	if st, err := c.Status(t.Context()); err != nil || st.Generation != 2 {
		t.Errorf("status %+v, error %v", st, err)
	}
	for range 2 {
		if err := (<-servers).Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// inherit makes the listener that a successor would have.
func inherit(t *testing.T, l net.Listener) net.Listener {
	t.Helper()
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inherited, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return inherited
}

// askRaw asks for the status on a connection.
func askRaw(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(readTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: gotgtd\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestCloseWaits closes the server while an answer is being made.
// TestClientWaitsInLine goes from one process to the next as long as each has had it wait.
func TestClientWaitsInLine(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "control.sock")
	var asked atomic.Int32
	d := &fakeDaemon{upgrade: func(context.Context) (handoff.Report, error) {
		time.Sleep(leftPause + time.Millisecond)
		if asked.Add(1) <= leftRetries+5 { // processes that have left
			return handoff.Report{}, ErrLeft
		}
		return handoff.Report{Generation: 7}, nil
	}}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, d)
	r, err := NewClient(socket).Upgrade(t.Context(), 0)
	if err != nil || r.Generation != 7 {
		t.Errorf("%v, %v after %d", r, err, asked.Load())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCloseWaits(t *testing.T) {
	running, closed := make(chan struct{}), make(chan error, 1)
	finish := make(chan struct{})
	s, c := testServer(t, &fakeDaemon{upgrade: func(context.Context) (handoff.Report, error) {
		close(running)
		<-finish
		return handoff.Report{Generation: 2}, nil
	}})
	go func() {
		<-running
		go func() { closed <- s.Close(context.Background()) }()
		// The listener is closed first: whoever comes now finds nobody.
		for {
			n, err := net.Dial("unix", c.socket)
			if err != nil {
				break
			}
			n.Close()
		}
		close(finish)
	}()
	if r, err := c.Upgrade(t.Context(), 0); err != nil || r.Generation != 2 {
		t.Errorf("report %+v, error %v", r, err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseGivesUp closes the server while an answer is made that takes for ever.
func TestCloseGivesUp(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "gotgtd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	running, finish, asked := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := Serve(l, &fakeDaemon{upgrade: func(context.Context) (handoff.Report, error) {
		close(running)
		<-finish
		return handoff.Report{}, nil
	}})
	go func() {
		defer close(asked)
		if _, err := NewClient(l.Addr().String()).Upgrade(context.Background(), 0); err == nil {
			t.Error("the answer came")
		}
	}()
	<-running
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	<-asked
	close(finish)
}

func TestBadRequests(t *testing.T) {
	_, c := testServer(t, &fakeDaemon{upgrade: func(context.Context) (handoff.Report, error) {
		t.Error("an upgrade was made")
		return handoff.Report{}, nil
	}})
	for path, want := range map[string]string{
		"/v1/upgrade?timeout=soon": `timeout "soon" is not a positive duration`,
		"/v1/upgrade?timeout=-1s":  `timeout "-1s" is not a positive duration`,
		"/v1/status":               "there is no POST /v1/status here",
		"/v2/upgrade":              "there is no POST /v2/upgrade here",
		"/v1/upgrade?timeout=" + strings.Repeat("1", 2*maxHeader): "431",
	} {
		err := c.call(t.Context(), http.MethodPost, path, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("POST %.40s: error %v, want one with %q", path, err, want)
		}
	}
}

// TestUnknownRequests: every answer has its error in JSON.
func TestUnknownRequests(t *testing.T) {
	_, c := testServer(t, &fakeDaemon{})
	for _, r := range [][2]string{{http.MethodGet, "/v1/nothing"}, {http.MethodDelete, "/v1/config"}, {http.MethodGet, "/"}} {
		err := c.call(t.Context(), r[0], r[1], nil)
		if want := "there is no " + r[0] + " " + r[1] + " here"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", r, err, want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "gotgtd.sock")
	st, err := NewClient(socket).Status(t.Context())
	if want := "can't reach gotgtd through \"" + socket + `"`; st != nil || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("status %+v, error %v, want one with %q", st, err, want)
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v hides its cause", err)
	}
}

func TestEndSession(t *testing.T) {
	until := time.Unix(1<<30, 0)
	want := target.SessionEnd{TSIH: 7, Initiator: "iqn.2026-11.test:i", Target: "iqn.2026-11.test:a", LoggedOut: true, Rejected: &until}
	left := true
	_, c := testServer(t, &fakeDaemon{end: func(_ context.Context, tsih uint16, rejectFor time.Duration) (target.SessionEnd, error) {
		switch {
		case left:
			left = false
			return target.SessionEnd{}, ErrLeft
		case tsih != 7:
			return target.SessionEnd{}, &target.NoSessionError{TSIH: tsih}
		case rejectFor != 90*time.Second:
			return target.SessionEnd{}, errors.New("no room")
		}
		return want, nil
	}})
	got, err := c.EndSession(t.Context(), 7, 90*time.Second)
	if err != nil || !got.Rejected.Equal(until) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Rejected = want.Rejected
	if *got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := c.EndSession(t.Context(), 8, 0); err == nil || err.Error() != "there is no session with TSIH 8, and no other" {
		t.Errorf("error %v", err)
	}
	if _, err := c.EndSession(t.Context(), 7, 0); err == nil || err.Error() != "no room" {
		t.Errorf("error %v", err)
	}
}

// TestEndSessionBadRequests asks for what makes no sense.
func TestEndSessionBadRequests(t *testing.T) {
	_, c := testServer(t, &fakeDaemon{})
	for path, want := range map[string]string{
		"/v1/sessions/first":              `TSIH "first" is not a number`,
		"/v1/sessions/65536":              `TSIH "65536" is not a number`,
		"/v1/sessions/1?reject-for=never": `reject-for "never" is not a positive duration`,
		"/v1/sessions/1?reject-for=-1s":   `reject-for "-1s" is not a positive duration`,
	} {
		if err := c.call(t.Context(), http.MethodDelete, path, new(target.SessionEnd)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
