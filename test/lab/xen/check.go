// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/lab/counter"
	"github.com/gotgtd/gotgtd/test/lab/latency"
)

// check looks at what the scenario has left behind. It makes all the checks, whatever
// fails.
func (s *scenario) check(ctx context.Context, e *evidence) {
	var records []counter.Record
	for _, step := range []step{
		{"the counter on the disk has no gap and no damage", func(context.Context) (err error) {
			records, err = s.readCounter()
			return err
		}},
		{"host2 reads the same counter", func(ctx context.Context) error { return s.readFrom(ctx, s.hosts[1], s.device[1], records) }},
		{"the file system is clean", func(ctx context.Context) error { return s.fsck(ctx, s.hosts[1], s.device[1], records) }},
		{"the guest's console has no error", func(ctx context.Context) error {
			text, err := e.guest.console(ctx)
			if err != nil {
				return err
			}
			return checkConsole(text, uint64(len(records)))
		}},
		{"no initiator was disturbed", func(ctx context.Context) error {
			return errors.Join(e.watches[0].Undisturbed(ctx), e.watches[1].Undisturbed(ctx))
		}},
		{"the target has the same sessions", func(ctx context.Context) error {
			now, err := s.sessions(ctx)
			if err == nil && !slices.Equal(now, e.sessions) {
				err = fmt.Errorf("they were %q and are %q", e.sessions, now)
			}
			return err
		}},
	} {
		// A step that fails is in the report.
		_ = s.lab.Step(ctx, step.name, step.do)
	}
	s.figures(e, records)
}

// readCounter checks the counter in the logical unit's file.
func (s *scenario) readCounter() ([]counter.Record, error) {
	disk, err := os.Open(s.disk)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	return counter.Check(disk, counterOffset, counterSize)
}

// readFrom checks the counter as a host reads it.
func (s *scenario) readFrom(ctx context.Context, host *lab.Machine, device string, records []counter.Record) error {
	out, err := host.Run(ctx, fmt.Sprintf("%s check -offset %d -size %d %s", counterProgram, counterOffset, counterSize, device))
	if want := fmt.Sprintf("%d numbers\n", len(records)); err == nil && out != want {
		err = fmt.Errorf("it reads %q, and not %q", out, want)
	}
	return err
}

// fsck checks the guest's file system from a host, and that the file in it has the last number.
func (s *scenario) fsck(ctx context.Context, host *lab.Machine, device string, records []counter.Record) error {
	// What the host has in its cache of the device is from before the guest's time.
	if _, err := host.Run(ctx, "blockdev --flushbufs "+device+" && e2fsck -fn "+device); err != nil {
		return err
	}
	out, err := host.Run(ctx, "debugfs -R 'cat /var/counter' "+device+" 2>/dev/null")
	if want := fmt.Sprintf("%d\n", len(records)); err == nil && out != want {
		err = fmt.Errorf("/var/counter has %q, and not %q", out, want)
	}
	return err
}

// guestError is what Linux prints when a disk or a file system fails, or it itself does.
var guestError = regexp.MustCompile(`(?i)i/o error|blk_update_request|EXT4-fs (error|warning)|remounting|aborted|blkfront.*(error|fail)|hung task|blocked for more|panic|oops|BUG:|call trace|` +
	counter.LineError)

// checkConsole returns an error if the console tells of one, or if the counter's lines do not
// rise up to its last number.
func checkConsole(text string, last uint64) error {
	var problems []error
	var number uint64
	ended := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if guestError.MatchString(line) {
			problems = append(problems, errors.New(line))
		}
		fields := strings.Fields(line)
		if len(fields) < 2 || (fields[0] != counter.LineCount && fields[0] != counter.LineEnd) {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil || ended || n < number || (n == number && fields[0] == counter.LineCount) {
			problems = append(problems, fmt.Errorf("%q comes after number %d", line, number))
		}
		number, ended = n, fields[0] == counter.LineEnd
	}
	if !ended || number != last {
		problems = append(problems, fmt.Errorf("the console ends with number %d, and %d is the last one", number, last))
	}
	return errors.Join(problems...)
}

// figures puts what was measured into the report.
func (s *scenario) figures(e *evidence, records []counter.Record) {
	s.lab.Figure("numbers of the counter", "%d", len(records))
	gap, after := longestGap(e.arrivals, func(_, _ time.Time) bool { return false })
	s.lab.Figure("longest gap in the counter", "%.1f s, after number %d", gap.Seconds(), after)
	gap, after = longestGap(e.arrivals, e.guest.migrating)
	s.lab.Figure("longest gap outside of the migrations", "%.1f s, after number %d", gap.Seconds(), after)
	s.lab.Figure("longest pause of an upgrade, as gotgtd has it", "%.1f ms", s.longest.Seconds()*1000)
	// The guest's clock stands still while it is moved, and knows nothing of gaps.
	io, gaps := operations(e.arrivals, records)
	s.lab.Operations("guest I/O", io)
	s.lab.Operations("counter gap", gaps)
}

// operations makes of each number what the guest says of its slowest I/O, and the time until the
// next number came.
func operations(arrivals []counter.Arrival, records []counter.Record) (io, gaps []latency.Operation) {
	for i := 0; i+1 < min(len(arrivals), len(records)); i++ {
		at := arrivals[i].At
		// A number's record has the times of the number before.
		io = append(io, latency.Operation{Write: true, Start: at, Took: records[i+1].Slowest})
		gaps = append(gaps, latency.Operation{Write: true, Start: at, Took: arrivals[i+1].At.Sub(at)})
	}
	return io, gaps
}
