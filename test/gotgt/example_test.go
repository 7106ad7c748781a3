// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// embedded is the program that embeds the driver, through its generations.
type embedded struct {
	t       *testing.T
	target  string
	portals []string
	client  http.Client
	log     string // path
}

// status is its answer to a request for statistics.
type status struct {
	PID   int
	Size  int64
	Stats struct {
		IsClientConnected   bool
		ReadIOPS, WriteIOPS int64
	}
}

// startExample runs it with a volume of so many bytes, at two portals.
func startExample(t *testing.T, size int64) *embedded {
	t.Helper()
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(newPortal(t))
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "control.sock")
	e := &embedded{
		t: t, target: "iqn.2026-11.example:vol1", log: filepath.Join(dir, "log"),
		portals: []string{"127.0.0.1:" + port, "127.0.0.2:" + port},
	}
	e.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	// Its output goes to a file: a pipe would end with the first generation.
	_, err = peer.Spawn("sh", "-c", `log=$1; shift; exec "$@" >"$log" 2>&1`, "sh", e.log, programs.example.Path(t),
		"-memory", filepath.Join(dir, "memory"), "-size", fmt.Sprint(size), "-portal", strings.Join(e.portals, ","), "-control", socket)
	if err != nil {
		t.Fatal(err)
	}
	e.until("it serves", func(status) bool { return true })
	t.Cleanup(e.close)
	return e
}

// request sends a request and returns the answer.
func (e *embedded) request(ctx context.Context, method, what string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://volume/"+what, nil)
	if err != nil {
		return nil, err
	}
	answer, err := e.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(string(body))
	}
	return body, err
}

// until waits for a status.
func (e *embedded) until(what string, reached func(status) bool) (st status) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	err := peer.Until(ctx, func() error {
		body, err := e.request(ctx, http.MethodGet, "stats")
		if err == nil {
			err = json.Unmarshal(body, &st)
		}
		if err == nil && !reached(st) {
			err = fmt.Errorf("its status is %+v", st)
		}
		return err
	})
	if err != nil {
		log, _ := os.ReadFile(e.log)
		e.t.Fatalf("until %s: %v\n%s", what, err, log)
	}
	return st
}

// upgrade replaces the process.
func (e *embedded) upgrade() {
	e.t.Helper()
	old := e.until("it answers", func(status) bool { return true }).PID
	if err := unix.Kill(old, unix.SIGHUP); err != nil {
		e.t.Fatal(err)
	}
	e.until("another process serves", func(st status) bool { return st.PID != old })
	for reaped := 1; reaped > 0; { // generations that have ended
		reaped, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
	}
}

// close ends it as a program does, and sees that it is gone.
func (e *embedded) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := e.request(ctx, http.MethodPost, "close"); err != nil {
		e.t.Error(err)
	}
	err := peer.Until(ctx, func() error {
		c, err := net.Dial("tcp", e.portals[0])
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("it still listens")
	})
	if err != nil {
		e.t.Error(err)
	}
	if log, err := os.ReadFile(e.log); err != nil || e.t.Failed() {
		e.t.Logf("%v, its log:\n%s", err, log[max(0, len(log)-4096):])
	}
}

// everyFamily is for a thorough run; see docs/gotgt.md.
var everyFamily = flag.Bool("every-family", false, "run libiscsi's suite in all its families, 615 tests, and not just in the one that has each test once")

// TestExample runs libiscsi's suite over the embedding program's two portals,
// while a session of the project's own initiator writes and verifies, and one
// process follows the other.
func TestExample(t *testing.T) {
	peer.Need(t, "iscsi-test-cu")
	const size = 64 << 20
	e := startExample(t, size)
	other := startExample(t, size) // for the suite, which resets what it is at
	s := e.dial()
	var working sync.WaitGroup
	stop := make(chan struct{})
	for n := range uint64(4) {
		working.Go(func() {
			if err := writeAndVerify(t.Context(), s, n, stop); err != nil {
				t.Error(err)
			}
		})
	}
	var suite *peer.CUnitRun
	done := make(chan error, 1)
	go func() {
		args := []string{"-d", "-t", "ALL"}
		if *everyFamily {
			args = args[:1]
		}
		out, runErr := peer.Run(t.Context(), "iscsi-test-cu", append(args, peer.URL(other.portals[0], other.target, 0), peer.URL(other.portals[1], other.target, 0))...)
		var err error
		if suite, err = peer.ParseCUnit(strings.NewReader(out)); err != nil {
			err = errors.Join(err, runErr)
		}
		done <- err
	}()
	upgrades := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			running = false
		case <-tick.C:
			e.upgrade()
			other.upgrade()
			upgrades++
		}
	}
	close(stop)
	working.Wait()
	t.Logf("%d upgrades of each", upgrades)
	if st := e.until("it answers", func(status) bool { return true }); upgrades < 3 || !st.Stats.IsClientConnected || st.Stats.ReadIOPS < 100 || st.Stats.WriteIOPS < 100 {
		t.Errorf("after %d upgrades: %+v", upgrades, st)
	}
	if suite != nil {
		judge(t, suite)
	}
	e.resizes(s, size)
	if err := s.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// unfit are tests of the suite that no target can pass whose physical blocks
// have several logical ones, as gotgt's always do, and why: the first descriptor of
// GET LBA STATUS has the LBA of the CDB (SBC-3, LBA status descriptor relationships).
var unfit = map[string]string{
	"GetLBAStatus.UnmapSingle": "asks for the status from LBA i+1 on and wants an answer from i+8 on",
}

// judge wants all tests passed but those that are unfit.
func judge(t *testing.T, run *peer.CUnitRun) {
	t.Helper()
	if want := map[bool]int{false: 230, true: 615}[*everyFamily]; run.Ran != want {
		t.Errorf("%d tests ran, not %d", run.Ran, want)
	}
	for _, test := range run.Tests {
		if !test.Passed && unfit[test.String()] == "" {
			t.Errorf("%s failed:\n\t%s", test, strings.Join(test.Output, "\n\t"))
		}
	}
	t.Logf("%d of %d passed", run.Passed, run.Ran)
}

// dial logs in.
func (e *embedded) dial() *initiator.Session {
	e.t.Helper()
	s, err := initiator.Dial(e.t.Context(), initiator.Options{Address: e.portals[0], TargetName: e.target})
	if err == nil {
		err = s.Settle(e.t.Context(), initiator.LUN(0))
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { s.Close() })
	return s
}

// writeAndVerify writes the n-th MiB of the disk and reads it back until it is
// stopped.
func writeAndVerify(ctx context.Context, s *initiator.Session, n uint64, stop <-chan struct{}) error {
	const blocks, perCommand = 2048, 64
	lun := initiator.LUN(0)
	want, got := make([]byte, perCommand*512), make([]byte, perCommand*512)
	var cmd initiator.Command
	for round := uint64(0); ; round++ {
		select {
		case <-stop:
			return nil
		default:
		}
		lba := n*blocks + round*perCommand%blocks
		for i := range want {
			want[i] = byte(uint64(i) + round*7 + n)
		}
		if err := s.Do(ctx, cmd.Write16(lun, lba, perCommand, want, 0)); err != nil {
			return fmt.Errorf("write %d at LBA %d: %w", round, lba, err)
		}
		if err := s.Do(ctx, cmd.Read16(lun, lba, perCommand, got, 0)); err != nil {
			return fmt.Errorf("read %d at LBA %d: %w", round, lba, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("LBA %d does not hold what was written in round %d", lba, round)
		}
	}
}

// resizes makes the volume larger under the session, before and after an
// upgrade.
func (e *embedded) resizes(s *initiator.Session, size int64) {
	e.t.Helper()
	for n := int64(2); n <= 3; n++ {
		if _, err := e.request(e.t.Context(), http.MethodPost, fmt.Sprintf("resize?size=%d", n*size)); err != nil {
			e.t.Fatal(err)
		}
		if err := s.Settle(e.t.Context(), initiator.LUN(0)); err != nil {
			e.t.Error(err)
		}
		if c, err := s.ReadCapacity(e.t.Context(), initiator.LUN(0)); err != nil || c.Blocks != uint64(n*size)/512 {
			e.t.Errorf("capacity %+v, %v, want %d bytes", c, err, n*size)
		}
		e.upgrade()
		if c, err := s.ReadCapacity(e.t.Context(), initiator.LUN(0)); err != nil || c.Blocks != uint64(n*size)/512 {
			e.t.Errorf("capacity after an upgrade %+v, %v, want %d bytes", c, err, n*size)
		}
	}
}
