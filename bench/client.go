// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/histogram"
	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// A client runs a workload on a target once.
type client func(ctx context.Context, t *running, d time.Duration) (*sample, error)

// sample is what a client measured.
type sample struct {
	rate     float64              // commands per second
	commands float64              // how many, for the CPU time of each
	cpu      time.Duration        // of the target, during them; 0 when it can't be known
	client   time.Duration        // CPU time of the client
	latency  *histogram.Histogram // nil when the client does not tell
	cold     int64                // bytes of the target's file that had to be read into the page cache first
}

// watchCPU runs f and puts the CPU time meanwhile into its sample: the target's,
// and the client's, which is this process or a child of it that has ended since.
func watchCPU(t *running, who int, f func() (*sample, error)) (*sample, error) {
	before, err := processorTimes(t, who)
	if err != nil {
		return nil, err
	}
	s, err := f()
	if err != nil {
		return nil, err
	}
	after, err := processorTimes(t, who)
	s.cpu, s.client = after[0]-before[0], after[1]-before[1]
	return s, err
}

// processorTimes returns the CPU time of a target, 0 if it can't be known, and of
// this process or its ended children (getrusage(2)).
func processorTimes(t *running, who int) (times [2]time.Duration, err error) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return times, fmt.Errorf("can't read the client's CPU time: %w", err)
	}
	times[1] = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if t.pid != 0 {
		times[0], err = cpuTime(t.pid)
	}
	return times, err
}

// perf measures with libiscsi's iscsi-perf, which reads.
func perf(args ...string) client {
	return func(ctx context.Context, t *running, d time.Duration) (*sample, error) {
		seconds := max(1, int(d.Seconds())) // it takes whole ones
		all := append(append([]string{"-t", fmt.Sprint(seconds)}, args...), t.unit.String())
		return watchCPU(t, unix.RUSAGE_CHILDREN, func() (*sample, error) {
			out, err := peer.Run(ctx, "iscsi-perf", all...)
			if err != nil {
				return nil, err
			}
			rate, err := parsePerf(out)
			return &sample{rate: rate, commands: rate * float64(seconds)}, err
		})
	}
}

// qemu measures with qemu-img bench, which does a given number of requests. The
// first run on a target does a few, which tell how many take the time that is wanted.
func qemu(few int, args ...string) client {
	rates := make(map[string]float64) // by target
	run := func(ctx context.Context, t *running, count int) (*sample, error) {
		all := append([]string{"bench", "-f", "raw", "-t", "none", "-c", fmt.Sprint(count)}, args...)
		return watchCPU(t, unix.RUSAGE_CHILDREN, func() (*sample, error) {
			out, err := peer.Run(ctx, "qemu-img", append(all, t.unit.String())...)
			if err != nil {
				return nil, err
			}
			rate, err := parseQEMU(out, count)
			return &sample{rate: rate, commands: float64(count)}, err
		})
	}
	return func(ctx context.Context, t *running, d time.Duration) (*sample, error) {
		if rates[t.name] == 0 {
			first, err := run(ctx, t, few)
			if err != nil {
				return nil, err
			}
			rates[t.name] = first.rate
		}
		s, err := run(ctx, t, max(few, int(rates[t.name]*d.Seconds())))
		if err == nil {
			rates[t.name] = s.rate
		}
		return s, err
	}
}

// loadOptions are what load generator workloads differ in; see initiator.Load.
type loadOptions struct {
	bytes      int
	reads      int // per cent
	sequential bool
	depth      int     // of each session
	sessions   int     // zero: 1
	rate       float64 // commands per second; zero: closed loop
	digests    bool    // of header and data
}

// warmUp is how long the load generator runs before it measures.
const warmUp = 100 * time.Millisecond

// load measures with the project's own load generator.
func load(o loadOptions) client {
	return func(ctx context.Context, t *running, d time.Duration) (*sample, error) {
		sessions, err := dialAll(ctx, t.unit, max(1, o.sessions), o.digests)
		defer closeAll(sessions)
		if err != nil {
			return nil, err
		}
		l := &initiator.Load{Sessions: sessions, LUN: initiator.LUN(t.unit.LUN), Bytes: o.bytes, ReadPercent: o.reads,
			Sequential: o.sequential, Depth: o.depth, Rate: o.rate, Seed: uint64(time.Now().UnixNano()), Duration: warmUp}
		c, err := sessions[0].ReadCapacity(ctx, l.LUN)
		if err != nil {
			return nil, err
		}
		l.Blocks, l.BlockSize = c.Blocks, int(c.BlockSize)
		if _, err := l.Run(ctx); err != nil {
			return nil, err
		}
		l.Duration = d
		return watchCPU(t, unix.RUSAGE_SELF, func() (*sample, error) {
			r, err := l.Run(ctx)
			if err != nil {
				return nil, err
			}
			r.Reads.Merge(&r.Writes)
			return &sample{rate: r.IOPS(), commands: float64(r.Commands()), latency: &r.Reads}, nil
		})
	}
}

// dialTimeout bounds a login and what follows until the unit is ready.
const dialTimeout = 20 * time.Second

// sessionsOfOne is how many sessions one host opens.
const sessionsOfOne = 100

// dialAll opens sessions to a logical unit and takes the unit attentions that
// wait there. With an error it returns those that it has opened.
func dialAll(ctx context.Context, u unit, n int, digests bool) (sessions []*initiator.Session, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	o := initiator.Options{Address: u.Address, TargetName: u.Target, ImmediateData: true, FirstBurstLength: 256 << 10}
	if digests {
		o.HeaderDigest, o.DataDigest = "CRC32C,None", "CRC32C,None"
	}
	for i := range n {
		if n > sessionsOfOne { // as many hosts, for a target that gives each its share of sessions
			host := i / sessionsOfOne
			o.InitiatorName = fmt.Sprintf("iqn.2026-11.io.gotgtd:host-%d", host)
			o.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+host))}}).DialContext
		}
		s, err := initiator.Dial(ctx, o)
		if err != nil {
			return sessions, fmt.Errorf("session %d of %d: %w", len(sessions)+1, n, err)
		}
		sessions = append(sessions, s)
		if p := s.Params(); digests && !(p.HeaderDigest && p.DataDigest) {
			return sessions, errors.New("it does no digests")
		}
		if err := s.Settle(ctx, initiator.LUN(u.LUN)); err != nil {
			return sessions, fmt.Errorf("session %d of %d: %w", len(sessions), n, err)
		}
	}
	return sessions, nil
}

// closeAll ends sessions with a logout, or without where that is not answered.
func closeAll(sessions []*initiator.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	for _, s := range sessions {
		if s.Logout(ctx) != nil {
			_ = s.Close() // its error has been seen by whoever used it
		}
	}
}
