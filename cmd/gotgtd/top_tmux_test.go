// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// terminal is a tmux server with one window.
type terminal struct {
	t      *testing.T
	socket string
}

// inTerminal runs a command in a window of 120 columns and 15 lines, which afterwards shows its exit status.
func inTerminal(t *testing.T, command ...string) *terminal {
	t.Helper()
	peer.Need(t, "tmux")
	w := &terminal{t, filepath.Join(t.TempDir(), "tmux")}
	w.tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "15",
		"env "+actAsMain+"=1 GORACE=atexit_sleep_ms=0 "+strings.Join(command, " ")+"; echo exit status $?; exec sleep 1000")
	t.Cleanup(func() { w.tmux("kill-server") })
	return w
}

func (w *terminal) tmux(args ...string) string {
	w.t.Helper()
	// Not the test's context, for the server has to be ended after that.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "tmux", append([]string{"-u", "-S", w.socket}, args...)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (w *terminal) press(keys ...string) {
	w.t.Helper()
	w.tmux(append([]string{"send-keys"}, keys...)...)
}

// until waits until the window is as it should be.
func (w *terminal) until(what string, good func(screen string) bool) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var screen string
	err := peer.Until(ctx, func() error {
		if screen = w.tmux("capture-pane", "-p"); !good(screen) {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		w.t.Fatalf("%s: the window is\n%s", what, screen)
	}
	return screen
}

func (w *terminal) untilShows(texts ...string) string {
	w.t.Helper()
	return w.until(fmt.Sprintf("no %q", texts), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	})
}

// column is the number in a row, told by its first column, below a head; not a number if there is none.
func column(screen, row, head string) float64 {
	var heads []string
	for line := range strings.Lines(screen) {
		words := strings.Fields(line)
		if len(words) > 2 && words[2] == "R/s" {
			heads = words
		}
		for i := range min(len(heads), len(words)) {
			if words[0] == row && heads[i] == head {
				n, err := strconv.ParseFloat(words[i], 64)
				if err != nil {
					return math.NaN()
				}
				return n
			}
		}
	}
	return math.NaN()
}

// TestTopInTerminal looks at top under a load of 200 writes a second, on screens of several sizes and through an upgrade.
func TestTopInTerminal(t *testing.T) {
	dir := t.TempDir()
	d := startDaemon(t, "--disk", filepath.Join(dir, "a.img")+",size=1MiB", "--disk", filepath.Join(dir, "b.img")+",size=1MiB")
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.status(t).Portals[0].Address.String(), TargetName: defaultTarget, InitiatorName: "iqn.2026-11.test:a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Settle(t.Context(), initiator.LUN(2)); err != nil {
		t.Fatal(err)
	}
	const rate, size = 200, 8192
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan error, 1)
	go func() {
		l := initiator.Load{Sessions: []*initiator.Session{s}, LUN: initiator.LUN(2), Blocks: 1024, BlockSize: 512, Bytes: size, Depth: 8, Rate: rate, Duration: time.Hour}
		_, err := l.Run(ctx)
		loaded <- err
	}()
	defer func() {
		cancel()
		if err := <-loaded; !errors.Is(err, context.Canceled) {
			t.Errorf("the load has failed: %v", err)
		}
	}()

	w := inTerminal(t, d.program, "top", "--control", d.socket, "--delay", "0.5", "--bytes")
	agrees := func(row string) func(string) bool {
		return func(screen string) bool {
			n, bytes := column(screen, row, "W/s"), column(screen, row, "WRITTEN/s")
			return math.Abs(n-rate) < rate/5 && math.Abs(bytes-n*size) <= size && column(screen, row, "R/s") == 0
		}
	}
	screen := w.until("LUN 2 does not write as the initiator does", agrees("2"))
	if strings.Index(screen, "\n  2 ") > strings.Index(screen, "\n  1 ") || column(screen, "1", "W/s") != 0 {
		t.Errorf("LUN 2 is not before LUN 1, which is idle:\n%s", screen)
	}
	w.press("r")
	w.until("LUN 1 is not before LUN 2", func(screen string) bool {
		return strings.Index(screen, "\n  1 ") < strings.Index(screen, "\n  2 ") && strings.Contains(screen, "lowest first")
	})
	w.press("i")
	w.untilShows("1 initiators by io", "iqn.2026-11.test:a")
	w.until("the initiator does not write as it does", agrees("1"))
	w.press("r", "l")
	w.tmux("resize-window", "-x", "60", "-y", "6")
	w.until("a small screen", func(screen string) bool {
		return strings.Contains(screen, "2 luns by io, every") && strings.Contains(screen, "…gtd:disk ") && !strings.Contains(screen, "PATH")
	})
	w.tmux("resize-window", "-x", "150", "-y", "30")
	w.untilShows(filepath.Join(dir, "b.img"))

	d.output(t, "upgrade")
	w.untilShows("generation 2,", "last pause")
	screen = w.until("after an upgrade LUN 2 does not write as the initiator does", agrees("2"))
	if strings.Contains(screen, "no answer") {
		t.Errorf("top has lost the daemon:\n%s", screen)
	}
	w.press("?")
	w.untilShows("sort by the next", "Press any key.")
	w.press("q")
	w.untilShows("exit status 0")
}

// TestTopWithoutDaemon goes on when the daemon is gone, and ends when it is asked to.
func TestTopWithoutDaemon(t *testing.T) {
	d := startDaemon(t)
	w := inTerminal(t, d.program, "top", "--control", d.socket, "--delay", "0.5")
	w.untilShows("1 luns by io")
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	w.untilShows("no answer for ", "can't reach gotgtd through")
	w.press("C-c")
	w.untilShows("exit status 0")
	if out := d.fail(t, "top", "--batch"); !strings.Contains(out, "can't reach gotgtd through") {
		t.Errorf("top without a daemon prints %q", out)
	}
}

// TestTopBatch prints tables where there is no terminal.
func TestTopBatch(t *testing.T) {
	d := startDaemon(t)
	out := d.output(t, "top", "-n", "2", "-d", "0.1", "--view", "luns", "--target", defaultTarget)
	if strings.Count(out, "\nLUN  TARGET ") != 2 || strings.Count(out, "\n\n") != 3 || strings.Contains(out, "\x1b") || !strings.Contains(out, filepath.Join(d.dir, "disk.img")) {
		t.Errorf("top prints\n%s", out)
	}
}
