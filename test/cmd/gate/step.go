// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// count is what a step found.
type count struct{ passed, failed int }

func (c *count) add(d count) {
	c.passed += d.passed
	c.failed += d.failed
}

// one is the count of a step that is itself the check.
func one(ok bool) count {
	if ok {
		return count{passed: 1}
	}
	return count{failed: 1}
}

// step is one thing that the gate runs. What it writes to w is shown at once.
type step struct {
	name string
	run  func(ctx context.Context, w io.Writer) count
}

// runAll runs the steps in order, all of them whatever fails, and sums up. Of each it tells the time, and
// that of all processors: a step in which they have little to do waits for something.
func runAll(ctx context.Context, w io.Writer, steps []step) count {
	var total count
	for _, s := range steps {
		if ctx.Err() != nil {
			fmt.Fprintf(w, "%s: not run, interrupted\n", s.name)
			total.failed++
			continue
		}
		start, before := time.Now(), processorTime()
		c := s.run(ctx, w)
		fmt.Fprintf(w, "%-28s %5d passed %3d failed %7.1fs %7.1fs of CPU\n",
			s.name, c.passed, c.failed, time.Since(start).Seconds(), (processorTime() - before).Seconds())
		total.add(c)
	}
	return total
}

// processorTime is what the programs have used that were started and have ended, with all of theirs.
func processorTime() time.Duration {
	var u unix.Rusage
	// It fails only for what is no process to ask for.
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// command prepares a program that is asked to stop, not killed, when ctx ends:
// what it started in turn gets its chance to clean up.
//
// Programs that are built with the race detector wait for a second before they exit, in case that
// goroutines which nobody waits for race meanwhile. Here every goroutine has an owner that waits for it, and some tests
// run a hundred programs.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// program is a step that passes when the program exits with 0 and, with quiet,
// prints nothing. Its output is shown when it fails.
func program(name string, quiet bool, args ...string) step {
	return step{name, func(ctx context.Context, w io.Writer) count {
		out, err := command(ctx, args[0], args[1:]...).CombinedOutput()
		ok := err == nil && !(quiet && len(bytes.TrimSpace(out)) > 0)
		if !ok {
			fmt.Fprintf(w, "--- %s\n%s", name, out)
			if err != nil {
				fmt.Fprintf(w, "%s: %v\n", args[0], err)
			}
		}
		return one(ok)
	}}
}
