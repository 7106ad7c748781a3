// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target"
)

func TestSelection(t *testing.T) {
	for _, tc := range []struct {
		s        selection
		targets  []string // with their LUNs
		sessions []uint16
	}{
		{selection{lun: -1}, []string{"t1: 0 1", "t2: 0 1 2"}, []uint16{1, 2}},
		{selection{target: "IQN.2015-02.com.stu31:T1", lun: -1}, []string{"t1: 0 1"}, []uint16{1}},
		{selection{target: "*:t?", lun: 2}, []string{"t1:", "t2: 2"}, nil},
		{selection{lun: 1}, []string{"t1: 1", "t2: 1"}, []uint16{1}},
		{selection{initiator: "*xen2", lun: -1}, []string{"t1: 0 1", "t2: 0 1 2"}, []uint16{2}},
	} {
		st := captured()
		if err := tc.s.apply(st); err != nil {
			t.Errorf("%+v: %v", tc.s, err)
		}
		var targets []string
		for _, x := range st.Targets {
			text := strings.TrimPrefix(x.Name, "iqn.2015-02.com.stu31:") + ":"
			for _, l := range x.LUNs {
				text += " " + string(rune('0'+l.LUN))
			}
			targets = append(targets, text)
		}
		var sessions []uint16
		for _, x := range st.Sessions {
			sessions = append(sessions, x.TSIH)
		}
		if !slices.Equal(targets, tc.targets) || !slices.Equal(sessions, tc.sessions) {
			t.Errorf("%+v leaves %q and sessions %v, want %q and %v", tc.s, targets, sessions, tc.targets, tc.sessions)
		}
	}
	masked := captured()
	masked.Sessions[0].Masked = []uint16{1}
	if err := (&selection{lun: 1}).apply(masked); err != nil || len(masked.Sessions) > 0 {
		t.Errorf("sessions that do not see LUN 1: %+v, %v", masked.Sessions, err)
	}
	if err := (&selection{target: "iqn.x", lun: -1}).apply(captured()); err == nil || err.Error() != "there is no target iqn.x" {
		t.Errorf("another target: %v", err)
	}
	for _, s := range []selection{{lun: 7}, {target: "*:t1", lun: 2}} {
		if err := s.apply(captured()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("there is no LUN %d in any target", s.lun)) {
			t.Errorf("%+v, which there is not: %v", s, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64][3]string{
		0:         {"0 bytes", "0B", "0"},
		1023:      {"1023 bytes", "1023B", "1023"},
		5 << 29:   {"2.5 GiB", "2.5GiB", "2684354560"},
		1<<63 - 1: {"8.0 EiB", "8.0EiB", "9223372036854775807"},
	} {
		if got := [3]string{sizes(false).shown(n), sizes(false).cell(n), sizes(true).cell(n)}; got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 90 * time.Minute: "1h30m", 49 * time.Hour: "2d01h"} {
		if got := age(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestWatch prints until it is interrupted, and replaces what was printed only on a terminal.
func TestWatch(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err = watch(ctx, w, time.Millisecond, func(w io.Writer) error {
		if n++; n == 3 {
			cancel()
		}
		_, err := io.WriteString(w, "x\n")
		return err
	})
	w.Close()
	text, readErr := io.ReadAll(r)
	if err != nil || readErr != nil || !strings.HasPrefix(string(text), "x\n\nx\n\nx\n") {
		t.Errorf("watch printed %q, %v, %v", text, err, readErr)
	}
	if isTerminal(w) {
		t.Error("a pipe is a terminal")
	}
	bad := errors.New("gone")
	if err := watch(t.Context(), io.Discard, time.Millisecond, func(io.Writer) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("watch of what fails: %v", err)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if !isTerminal(terminal) {
		t.Error("a terminal is none")
	}
}

// TestShowSelection asks a daemon for a part of its status.
func TestShowSelection(t *testing.T) {
	d := startDaemon(t)
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.status(t).Portals[0].Address.String(), TargetName: defaultTarget, InitiatorName: "iqn.2026-11.test:a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out := d.output(t, "show", "--lun", "1"); !strings.Contains(out, "Size: 1.0 MiB, Block size: 512\n") || strings.Contains(out, "LUN: 0\n") || !strings.Contains(out, "Initiator: iqn.2026-11.test:a ") {
		t.Errorf("show --lun 1 prints:\n%s", out)
	}
	if out := d.output(t, "show", "--bytes", "--initiator", "other"); !strings.Contains(out, "Size: 1048576 bytes, Block size: 512\n") || strings.Contains(out, "I_T nexus: ") {
		t.Errorf("show --bytes --initiator other prints:\n%s", out)
	}
	for args, want := range map[string]int{"--initiator=*:A": 1, "--initiator=*:b": 0, "--target=" + defaultTarget: 1, "--lun=1": 1} {
		var list []target.SessionStatus
		if err := json.Unmarshal([]byte(d.output(t, "sessions", "--json", args)), &list); err != nil || len(list) != want {
			t.Errorf("sessions %s: %d sessions, want %d (%v)", args, len(list), want, err)
		}
	}
	for args, want := range map[string]string{"--target=iqn.x": "there is no target iqn.x", "--lun=2": "there is no LUN 2 in any target"} {
		if out := d.fail(t, "sessions", args); !strings.Contains(out, want) {
			t.Errorf("sessions %s prints %q, want %q", args, out, want)
		}
	}
}
