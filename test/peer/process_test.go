// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProcessStops(t *testing.T) {
	for _, tc := range []struct{ name, script, err string }{
		{"in order", `trap 'exit 0' TERM; echo ready; while :; do read -r _ || sleep 0.01; done`, ""},
		{"with a status", `trap 'exit 3' TERM; echo ready; while :; do read -r _ || sleep 0.01; done`, "exit status 3"},
		{"by the signal", `echo ready; exec sleep 60`, "signal: terminated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Spawn("sh", "-c", tc.script)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := Until(ctx, func() error {
				if !strings.Contains(p.Log(), "ready") {
					return errors.New("not ready")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			err = p.Stop()
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("Stop: %v, want %q", err, tc.err)
			}
			select {
			case <-p.Done():
			default:
				t.Error("the process is not done after Stop")
			}
		})
	}
}

func TestStopOfAProcessThatHasFailed(t *testing.T) {
	p, err := Spawn("sh", "-c", "exit 5")
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 5") {
		t.Errorf("Stop: %v, want its exit status", err)
	}
}

func TestRunReportsTheEndOfTheOutput(t *testing.T) {
	out, err := Run(t.Context(), "sh", "-c", "echo why; exit 1")
	if err == nil || !strings.Contains(err.Error(), "why") || out != "why\n" {
		t.Errorf("Run: %q, %v", out, err)
	}
}

func TestLogKeepsTheEnd(t *testing.T) {
	l := &Log{Max: 100}
	for range 1000 {
		l.Write([]byte("0123456789"))
	}
	l.Write([]byte("the end"))
	if s := l.String(); len(s) > 200 || !strings.HasSuffix(s, "the end") {
		t.Errorf("%d bytes are kept, ending in %q", len(s), s[max(0, len(s)-20):])
	}
}

func TestUntilGivesTheLastError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	last := errors.New("two of three")
	calls := 0
	err := Until(ctx, func() error {
		if calls++; calls == 3 {
			cancel()
		}
		return last
	})
	if !errors.Is(err, last) || !errors.Is(err, context.Canceled) {
		t.Errorf("Until: %v", err)
	}
}
