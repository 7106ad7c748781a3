// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/test/peer"
)

// pause is how long initiators wait while the process is replaced.
type pause struct {
	Upgrades int             `json:"upgrades"`
	Median   time.Duration   `json:"median"` // nanoseconds, as are the rest
	P90      time.Duration   `json:"p90"`
	P99      time.Duration   `json:"p99"`
	Longest  time.Duration   `json:"longest"`
	all      []time.Duration // in the order of the upgrades
}

// measurePause upgrades gotgtd under 4 KiB reads at depth 32.
func measurePause(ctx context.Context, g *peer.Gotgtd, upgrades int) (*pause, error) {
	load, err := peer.Spawn("iscsi-perf", "-t", "3600", "-r", "-b", "8", "-m", "32", peer.URL(g.Portals()[0], peer.IQN, 1))
	if err != nil {
		return nil, err
	}
	defer load.Kill()
	client := control.NewClient(g.Control())
	p := new(pause)
	for range upgrades {
		r, err := client.Upgrade(ctx, 20*time.Second)
		if err != nil {
			return nil, fmt.Errorf("upgrade %d: %w", len(p.all)+1, err)
		}
		p.all = append(p.all, r.Pause)
	}
	select {
	case <-load.Done():
		return nil, fmt.Errorf("the client ended during the upgrades:\n%s", load.Log())
	default:
	}
	p.Upgrades, p.Median, p.P90 = len(p.all), percentile(p.all, 50), percentile(p.all, 90)
	p.P99, p.Longest = percentile(p.all, 99), percentile(p.all, 100)
	return p, nil
}

// String draws the histogram.
func (p *pause) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pause of %d upgrades under 4 KiB reads at depth 32: median %v, p90 %v, p99 %v, longest %v\n",
		p.Upgrades, p.Median, p.P90, p.P99, p.Longest)
	low := time.Duration(0)
	for high := time.Millisecond; low <= p.Longest; high *= 2 {
		n := 0
		for _, d := range p.all {
			if d >= low && d < high {
				n++
			}
		}
		fmt.Fprintf(&b, "  under %-8v %5d %s\n", high, n, strings.Repeat("#", n*60/max(1, len(p.all))))
		low = high
	}
	return b.String()
}

// stopGotgtd ends the generation that serves now.
func stopGotgtd(g *peer.Gotgtd) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if st, err := control.NewClient(g.Control()).Status(ctx); err == nil && st.PID != os.Getpid() {
		_ = unix.Kill(st.PID, unix.SIGTERM)
	}
}
