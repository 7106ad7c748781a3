// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// logged is what a logger has written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.SplitAfter(strings.TrimSuffix(l.b.String(), "\n"), "\n")
}

// TestLogStorm has an initiator cause lines of every kind: resets, which the device server
// logs, refused logins, logins and their ends. They share one limit, and what is left out is
// counted in the end although nothing follows.
func TestLogStorm(t *testing.T) {
	var out logged
	log := limit.Logger(slog.New(slog.NewTextHandler(&out, nil)))
	began := time.Now()
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Log: log})
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: testTarget, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	target := &Target{Name: testTarget, Device: device}
	addLUN(t, target, 1)
	r.node.SetTargets([]*Target{target}, announced, Auth{})
	s := r.dial(initiator.Options{})
	const rounds = 40
	for range rounds {
		for _, f := range []pdu.TaskFunction{pdu.LogicalUnitReset, pdu.TargetWarmReset} {
			if _, err := s.TaskManagement(t.Context(), f, initiator.LUN(1), nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address(), InitiatorName: testInitiator + strings.Repeat("\u00fc", 90), TargetName: testTarget + strings.Repeat("n", 190)}); err == nil {
			t.Fatal("there is such a target")
		}
	}
	r.until("what was left out is counted", func() bool {
		lines := out.lines()
		return strings.Contains(lines[len(lines)-1], "left-out=")
	})
	lines, most := out.lines(), int(time.Since(began).Seconds()*limit.Lines)+limit.Lines+1
	if len(lines) > most || len(lines) > 2*rounds {
		t.Errorf("%d lines, want %d at most", len(lines), min(most, 2*rounds))
	}
	for _, line := range lines {
		if len(line) > limit.LineBytes {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

// TestLogRefusedLogin: who can't log in is found in the log by its name.
func TestLogRefusedLogin(t *testing.T) {
	var out logged
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Log: slog.New(slog.NewJSONHandler(&out, nil))})
	_, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address(), InitiatorName: testInitiator, TargetName: testTarget + "x"})
	if err == nil {
		t.Fatal("there is such a target")
	}
	r.until("the refusal is logged", func() bool { return strings.Contains(out.lines()[0], "login refused") })
	var line struct{ Level, Msg, Initiator, Target, Reason string }
	if err := json.Unmarshal([]byte(out.lines()[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.Level != "WARN" || line.Initiator != testInitiator || line.Target != testTarget+"x" || !strings.Contains(line.Reason, "0x0203") || strings.Contains(line.Reason, testInitiator) {
		t.Errorf("logged: %+v", line)
	}
}
