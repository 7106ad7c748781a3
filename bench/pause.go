// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/test/peer"
)

// pauses are how long initiators wait while a target is replaced.
type pauses struct {
	Deep     pause  `json:"deep"` // one session at depth 32
	Many     pause  `json:"many"` // many sessions
	Upgraded outage `json:"upgraded"`
	Restart  outage `json:"restarted_tgt"`
}

// pause is what upgrades say of themselves. Durations are in nanoseconds.
type pause struct {
	Load     string          `json:"load"`
	Upgrades int             `json:"upgrades"`
	Median   time.Duration   `json:"median"`
	P90      time.Duration   `json:"p90"`
	P99      time.Duration   `json:"p99"`
	Longest  time.Duration   `json:"longest"`
	all      []time.Duration // in the order of the upgrades
}

const (
	deepGoal, deepTailGoal = 3 * time.Millisecond, 15 * time.Millisecond // median, p99
	manySessions, manyBusy = 1000, 100
	manyGoal               = 200 * time.Millisecond // median
	manyDepth              = 1                      // of each busy session
	outageRounds           = 10
)

// measurePauses measures gotgtd's upgrades and, beside them, restarts of tgt.
func measurePauses(ctx context.Context, l *lineup, p *plan, dir string) (*pauses, error) {
	r := new(pauses)
	client := control.NewClient(l.gotgtd.Control())
	upgrade := func(ctx context.Context) (time.Duration, error) {
		report, err := client.Upgrade(ctx, 20*time.Second)
		return report.Pause, err
	}
	if err := r.Deep.measureDeep(ctx, l.targets[0].unit, p.upgrades, upgrade); err != nil {
		return nil, err
	}
	fmt.Println(&r.Deep)
	if err := r.Many.measureMany(ctx, l.targets[0].unit, p.upgrades/10, upgrade); err != nil {
		return nil, err
	}
	fmt.Println(&r.Many)
	err := r.Upgraded.measure(ctx, l.targets[0].unit, func(ctx context.Context) error {
		_, err := upgrade(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	fmt.Println("a client at depth 1 of gotgtd, upgraded:", &r.Upgraded)
	if err := r.Restart.measureTgt(ctx, dir, p.diskSize); err != nil {
		return nil, err
	}
	fmt.Println("a client at depth 1 of tgt, restarted:  ", &r.Restart)
	return r, nil
}

// measureDeep upgrades under 4 KiB reads of one session at depth 32.
func (p *pause) measureDeep(ctx context.Context, u unit, upgrades int, upgrade func(context.Context) (time.Duration, error)) error {
	p.Load = "4 KiB reads of a session at depth 32"
	load, err := peer.Spawn("iscsi-perf", "-t", "3600", "-r", "-b", "8", "-m", "32", u.String())
	if err != nil {
		return err
	}
	defer load.Kill()
	if err := p.measure(ctx, upgrades, upgrade); err != nil {
		return err
	}
	select {
	case <-load.Done():
		return fmt.Errorf("the client ended during the upgrades:\n%s", load.Log())
	default:
		return nil
	}
}

// errEnough ends a load when its upgrades are done.
var errEnough = errors.New("enough")

// measureMany upgrades under many sessions, some of which are busy.
func (p *pause) measureMany(ctx context.Context, u unit, upgrades int, upgrade func(context.Context) (time.Duration, error)) error {
	p.Load = fmt.Sprintf("%d sessions, %d of them busy", manySessions, manyBusy)
	sessions, err := dialAll(ctx, u, manySessions, false)
	defer closeAll(sessions)
	if err != nil {
		return err
	}
	c, err := sessions[0].ReadCapacity(ctx, initiator.LUN(u.LUN))
	if err != nil {
		return err
	}
	l := &initiator.Load{Sessions: sessions[:manyBusy], LUN: initiator.LUN(u.LUN), Blocks: c.Blocks, BlockSize: int(c.BlockSize),
		Bytes: small, ReadPercent: 100, Depth: manyDepth, Duration: time.Hour}
	loading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		_, err := l.Run(loading)
		ended <- err
	}()
	err = p.measure(ctx, upgrades, upgrade)
	cancel(errEnough)
	if e := <-ended; !errors.Is(e, errEnough) {
		err = errors.Join(err, fmt.Errorf("a client failed during the upgrades: %w", e))
	}
	for i, s := range sessions {
		if e := s.Err(); e != nil {
			return errors.Join(err, fmt.Errorf("session %d of %d ended during the upgrades: %w", i+1, len(sessions), e))
		}
	}
	return err
}

// measure upgrades one time after the other.
func (p *pause) measure(ctx context.Context, upgrades int, upgrade func(context.Context) (time.Duration, error)) error {
	for range upgrades {
		d, err := upgrade(ctx)
		if err != nil {
			return fmt.Errorf("upgrade %d: %w", len(p.all)+1, err)
		}
		p.all = append(p.all, d)
	}
	p.Upgrades, p.Median, p.P90 = len(p.all), percentile(p.all, 50), percentile(p.all, 90)
	p.P99, p.Longest = percentile(p.all, 99), percentile(p.all, 100)
	return nil
}

// String draws the histogram.
func (p *pause) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pause of %d upgrades under %s: median %v, p90 %v, p99 %v, longest %v\n",
		p.Upgrades, p.Load, p.Median, p.P90, p.P99, p.Longest)
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

// writeTable writes the pauses as Markdown.
func (r *pauses) writeTable(b *strings.Builder) {
	heading(b, "Pause of upgrades")
	row(b, true, "load", "upgrades", "median", "p90", "p99", "longest", "goal")
	for _, p := range []struct {
		*pause
		goal    string
		reached bool
	}{
		{&r.Deep, fmt.Sprintf("median under %v, p99 under %v", deepGoal, deepTailGoal), r.Deep.Median < deepGoal && r.Deep.P99 < deepTailGoal},
		{&r.Many, fmt.Sprintf("median under %v", manyGoal), r.Many.Median < manyGoal},
	} {
		verdict := "NOT REACHED"
		if p.reached {
			verdict = "reached"
		}
		row(b, false, p.Load, fmt.Sprint(p.Upgrades), millis(p.Median), millis(p.P90), millis(p.P99), millis(p.Longest), p.goal+": "+verdict)
	}
	heading(b, "What a client at depth 1 sees")
	row(b, true, "", "times", "longest wait, median", "longest wait of all", "failed commands", "new logins")
	r.Upgraded.writeRow(b, "gotgtd, upgraded")
	r.Restart.writeRow(b, "tgt, killed and started again at once")
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// stopGotgtd ends the generation that serves now.
func stopGotgtd(g *peer.Gotgtd) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := control.NewClient(g.Control()).Status(ctx)
	if err != nil || st.PID == os.Getpid() {
		return
	}
	// Who reaps it depends on the number of upgrades, so it is only watched here.
	signal := unix.SIGTERM
	gone := func() error {
		if err := unix.Kill(st.PID, signal); !errors.Is(err, unix.ESRCH) {
			return errors.New("it still runs")
		}
		return nil
	}
	if gone() != nil {
		signal = 0
		if peer.Until(ctx, gone) != nil {
			_ = unix.Kill(st.PID, unix.SIGKILL)
		}
	}
}
