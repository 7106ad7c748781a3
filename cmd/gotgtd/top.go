// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/target/control"
)

const (
	defaultDelay = 2 * time.Second
	minDelay     = 100 * time.Millisecond
)

// topOptions are the flags of top.
type topOptions struct {
	selection
	batch   bool
	count   int
	delay   string
	view    string
	by      string
	reverse bool
	bytes   *bool
}

func topCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch what logical units, sessions and initiators do",
		Long: `Top shows what is done a second by each logical unit, session or initiator, the busiest first, until q is pressed; ? shows all keys.
Where the output is no terminal, and with --batch, it prints tables one after the other. It goes on through upgrades.
WAIT is the mean time of commands until they are started, DISK that in the backing store, 99% what 99 of 100 did not exceed there.`,
		Args: cobra.NoArgs,
	}
	var o topOptions
	f := c.Flags()
	f.BoolVarP(&o.batch, "batch", "b", false, "print plain tables, one after the other")
	f.IntVarP(&o.count, "count", "n", 0, "end after `N` tables; 0: go on")
	f.StringVarP(&o.delay, "delay", "d", "2", "`TIME` between two tables, in seconds or as 500ms")
	f.StringVar(&o.view, "view", string(topLUNs), "begin with these, `VIEW`: luns, sessions or initiators")
	f.StringVar(&o.by, "sort", string(byIO), "sort by `ORDER`: io (commands a second), bytes, latency (of logical units) or queue")
	f.BoolVar(&o.reverse, "reverse", false, "the lowest first")
	o.bytes = bytesFlag(c)
	o.flags(c)
	completeFlag(c, "view", "luns", "sessions", "initiators")
	completeFlag(c, "sort", "io", "bytes", "latency", "queue")
	c.RunE = func(c *cobra.Command, _ []string) error {
		m, err := o.model(c)
		if err != nil {
			return err
		}
		poll := func(ctx context.Context) (*topSample, error) { return takeSample(ctx, client(c), &o.selection) }
		if o.batch || !isTerminal(c.OutOrStdout()) || !isTerminalInput(c.InOrStdin()) {
			return topBatch(c.Context(), c.OutOrStdout(), m, o.count, poll)
		}
		if os.Getenv("TERM") == "dumb" {
			return errors.New("this terminal can't move its cursor (TERM=dumb): use gotgtd top --batch")
		}
		return topInteractive(c.Context(), m, o.count, poll)
	}
	return c
}

// isTerminalInput tells whether keys come from r.
func isTerminalInput(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && isTerminal(f)
}

// model is what top begins with.
func (o *topOptions) model(c *cobra.Command) (*topModel, error) {
	if err := o.check(c); err != nil {
		return nil, err
	}
	m := &topModel{view: topView(o.view), by: topOrder(o.by), reverse: o.reverse, raw: sizes(*o.bytes)}
	var err error
	switch m.delay, err = parseDelay(o.delay); {
	case err != nil:
		return nil, err
	case !slices.Contains(topViews(), m.view):
		return nil, usagef("--view %q is none of %q", o.view, topViews())
	case !slices.Contains(topOrders(topLUNs), m.by):
		return nil, usagef("--sort %q is none of %q", o.by, topOrders(topLUNs))
	case !slices.Contains(topOrders(m.view), m.by):
		return nil, usagef("--sort %s is for logical units alone: %s have %q", o.by, o.view, topOrders(m.view))
	case o.count < 0:
		return nil, usagef("--count %d: must not be negative", o.count)
	}
	return m, nil
}

// parseDelay reads a time, in seconds if it has no unit.
func parseDelay(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, numErr := strconv.ParseFloat(s, 64); err != nil && numErr == nil && n < 1e6 {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d < minDelay {
		return 0, usagef("--delay %q: must be a number of seconds, or a time such as 500ms, of at least %v", s, minDelay)
	}
	return d, nil
}

// takeSample asks the daemon for what is selected.
func takeSample(ctx context.Context, d *control.Client, s *selection) (*topSample, error) {
	st, err := d.Status(ctx)
	if err == nil {
		err = s.apply(st)
	}
	if err != nil {
		return nil, err
	}
	return &topSample{st, time.Now()}, nil
}

// topBatch prints count tables, 0 for without end.
func topBatch(ctx context.Context, w io.Writer, m *topModel, count int, poll func(context.Context) (*topSample, error)) error {
	first, err := poll(ctx)
	if err != nil {
		return err
	}
	m.take(first, nil)
	tick := time.NewTicker(m.delay)
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := poll(ctx)
		if err != nil {
			return err
		}
		m.take(s, nil)
		text := strings.Join(m.page(0, 0), "\n") + "\n"
		if n > 0 {
			text = "\n" + text
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// polled is what a poll has brought.
type polled struct {
	sample *topSample
	err    error
}

// topInteractive runs top on the terminal, until its user or ctx ends it, or after count samples.
func topInteractive(ctx context.Context, m *topModel, count int, poll func(context.Context) (*topSample, error)) error {
	first, err := poll(ctx) // if there is no daemon, that is to be read afterwards too
	if err != nil {
		return err
	}
	m.take(first, nil)
	m.left, m.delays = count, make(chan time.Duration, 1)
	ctx, cancel := context.WithCancel(ctx)
	p := tea.NewProgram(m, tea.WithContext(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pollTop(ctx, m.delay, m.delays, func(r polled) { p.Send(r) }, poll)
	}()
	_, err = p.Run()
	cancel()
	<-done
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't use this terminal (gotgtd top --batch needs none): %w", err)
	}
	return nil
}

// pollTop polls again and again until ctx ends. A new delay has it poll at once.
func pollTop(ctx context.Context, delay time.Duration, delays <-chan time.Duration, send func(polled), poll func(context.Context) (*topSample, error)) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case delay = <-delays:
		case <-timer.C:
		}
		s, err := poll(ctx)
		if ctx.Err() != nil {
			return
		}
		send(polled{s, err})
		timer.Reset(delay)
	}
}
