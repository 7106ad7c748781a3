// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/internal/svgplot"
	"github.com/gotgtd/gotgtd/test/peer"
)

const (
	scaleSessions = 1000
	scaleUnits    = 1000
	scaleUnitSize = 8 << 20 // bytes
	memoryGoal    = 24 << 10
	// idleSettle is how long the process is left alone before its memory and
	// CPU time are read: what logins have left is collected meanwhile.
	idleSettle = 10 * time.Second
	idleWatch  = 20 * time.Second
)

// scaleReport is what a thousand sessions and logical units cost.
type scaleReport struct {
	Units          int           `json:"logical_units"`
	Sessions       int           `json:"sessions"`
	Start          time.Duration `json:"start_ns"` // from exec to the first answer about all units
	Login          time.Duration `json:"login_ns"` // mean, one after the other
	RSSEmpty       int64         `json:"rss_empty_bytes"`
	RSSLoggedIn    int64         `json:"rss_logged_in_bytes"` // right after the last login
	RSSIdle        int64         `json:"rss_idle_bytes"`      // some seconds later
	PerSession     int64         `json:"bytes_per_session"`   // of RSSIdle beyond RSSEmpty
	Kernel         int64         `json:"kernel_bytes_per_session"`
	ShowEmpty      time.Duration `json:"show_empty_ns"`
	ShowFull       time.Duration `json:"show_full_ns"`
	IdleWatch      time.Duration `json:"idle_watch_ns"`
	IdleCPUEmpty   time.Duration `json:"idle_cpu_empty_ns"` // CPU time within IdleWatch
	IdleCPUFull    time.Duration `json:"idle_cpu_full_ns"`
	IdleWakesEmpty int64         `json:"idle_wake_ups_empty"`
	IdleWakesFull  int64         `json:"idle_wake_ups_full"`
	Curve          []curvePoint  `json:"curve"`
}

// curvePoint is the throughput of random 4 KiB reads with some sessions.
type curvePoint struct {
	Target   string        `json:"target"`
	Sessions int           `json:"sessions"`
	IOPS     float64       `json:"iops"`
	CPU      *float64      `json:"cpu_us_per_io,omitempty"`
	P99      time.Duration `json:"p99_ns"`
	Client   float64       `json:"client_cores"`
	Failed   string        `json:"failed,omitempty"`
}

// measureScale measures a gotgtd with 1,000 logical units, without and with 1,000
// idle sessions, then how throughput goes with the number of sessions.
func measureScale(ctx context.Context, o *options, l *lineup, dir string) (*scaleReport, error) {
	r := &scaleReport{Units: scaleUnits, Sessions: scaleSessions, IdleWatch: idleWatch}
	if err := r.measureIdle(ctx, filepath.Join(dir, programName), filepath.Join(dir, "scale")); err != nil {
		return nil, err
	}
	r.print(os.Stdout)
	var err error
	r.Curve, err = measureCurve(ctx, &o.plan, l.targets)
	return r, err
}

// scaleConfig serves many sparse files in dir as logical units of one target.
func scaleConfig(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<target %s>\n", peer.IQN)
	for i := range scaleUnits {
		fmt.Fprintf(&b, "<backing-store %s>\nlun %d\n</backing-store>\n", filepath.Join(dir, fmt.Sprintf("%d.img", i+1)), i+1)
	}
	b.WriteString("</target>\n")
	return b.String()
}

func (r *scaleReport) measureIdle(ctx context.Context, program, dir string) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i := range scaleUnits {
		path := filepath.Join(dir, fmt.Sprintf("%d.img", i+1))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, scaleUnitSize)); err != nil {
			return err
		}
	}
	begin := time.Now()
	g, err := peer.StartGotgtd(ctx, program, peer.Options{Config: scaleConfig(dir), Dir: dir})
	if err != nil {
		return err
	}
	r.Start = time.Since(begin)
	defer func() { err = errors.Join(err, g.Stop()) }()
	if r.RSSEmpty, r.IdleCPUEmpty, r.IdleWakesEmpty, err = watchIdle(ctx, g.PID()); err != nil {
		return err
	}
	if r.ShowEmpty, err = timeShow(ctx, g); err != nil {
		return err
	}
	kernel, err := tcpMemory()
	if err != nil {
		return err
	}
	begin = time.Now()
	sessions, err := dialAll(ctx, unit{g.Portals()[0], peer.IQN, 1}, scaleSessions, false)
	defer closeAll(sessions)
	if err != nil {
		return err
	}
	r.Login = time.Since(begin) / scaleSessions
	if r.RSSLoggedIn, err = residentMemory(g.PID()); err != nil {
		return err
	}
	if r.RSSIdle, r.IdleCPUFull, r.IdleWakesFull, err = watchIdle(ctx, g.PID()); err != nil {
		return err
	}
	kernelFull, err := tcpMemory()
	if err != nil {
		return err
	}
	r.PerSession, r.Kernel = (r.RSSIdle-r.RSSEmpty)/scaleSessions, max(0, kernelFull-kernel)/scaleSessions
	if r.ShowFull, err = timeShow(ctx, g); err != nil {
		return err
	}
	return r.allAlive(sessions)
}

// allAlive fails if a session has ended meanwhile, since then it was not idle
// sessions that were measured.
func (r *scaleReport) allAlive(sessions []*initiator.Session) error {
	for i, s := range sessions {
		if err := s.Err(); err != nil {
			return fmt.Errorf("session %d of %d has ended: %w", i+1, len(sessions), err)
		}
	}
	return nil
}

// watchIdle leaves a process alone, and then returns its memory, and its CPU
// time and wake-ups within idleWatch.
func watchIdle(ctx context.Context, pid int) (rss int64, cpu time.Duration, wakes int64, err error) {
	if err := pauseFor(ctx, idleSettle); err != nil {
		return 0, 0, 0, err
	}
	cpuBefore, err := cpuTime(pid)
	if err != nil {
		return 0, 0, 0, err
	}
	wakesBefore, err := wakeUps(pid)
	if err != nil {
		return 0, 0, 0, err
	}
	if err := pauseFor(ctx, idleWatch); err != nil {
		return 0, 0, 0, err
	}
	cpu, err = cpuTime(pid)
	if err != nil {
		return 0, 0, 0, err
	}
	if wakes, err = wakeUps(pid); err != nil {
		return 0, 0, 0, err
	}
	rss, err = residentMemory(pid)
	return rss, cpu - cpuBefore, wakes - wakesBefore, err
}

// pauseFor lets time go by.
func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// timeShow returns how long the command `gotgtd show` takes.
func timeShow(ctx context.Context, g *peer.Gotgtd) (time.Duration, error) {
	begin := time.Now()
	_, err := g.Show(ctx)
	return time.Since(begin), err
}

// tcpMemory returns the kernel's memory for TCP sockets' queues and for kernel
// objects of all kinds in bytes. Sockets of both ends are in it.
func tcpMemory() (int64, error) {
	slab, err := fieldOf("/proc/meminfo", "Slab:")
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	var pages int64
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "TCP:" {
			if _, err := fmt.Sscan(f[len(f)-1], &pages); err != nil {
				return 0, fmt.Errorf("can't read %q of /proc/net/sockstat: %w", line, err)
			}
		}
	}
	return slab<<10 + pages*int64(os.Getpagesize()), nil
}

func (r *scaleReport) print(w io.Writer) {
	verdict := "reached"
	if r.PerSession > memoryGoal {
		verdict = "NOT REACHED"
	}
	perSecond := func(n int64) float64 { return float64(n) / r.IdleWatch.Seconds() }
	fmt.Fprintf(w, "gotgtd with %d logical units\n", r.Units)
	fmt.Fprintf(w, "  start until all are served    %v\n", r.Start.Round(time.Millisecond))
	fmt.Fprintf(w, "  resident memory               %.1f MiB\n", float64(r.RSSEmpty)/(1<<20))
	fmt.Fprintf(w, "  show                          %v\n", r.ShowEmpty.Round(time.Millisecond))
	fmt.Fprintf(w, "  idle for %v                  %v CPU, %.1f wake-ups a second\n", r.IdleWatch, r.IdleCPUEmpty, perSecond(r.IdleWakesEmpty))
	fmt.Fprintf(w, "and %d idle sessions\n", r.Sessions)
	fmt.Fprintf(w, "  a login                       %v\n", r.Login.Round(time.Microsecond))
	fmt.Fprintf(w, "  resident memory               %.1f MiB, %.1f MiB right after the logins\n", float64(r.RSSIdle)/(1<<20), float64(r.RSSLoggedIn)/(1<<20))
	fmt.Fprintf(w, "  for each session              %.1f KiB; goal %d KiB or less: %s\n", float64(r.PerSession)/1024, memoryGoal>>10, verdict)
	fmt.Fprintf(w, "  the kernel, both ends         %.1f KiB a session\n", float64(r.Kernel)/1024)
	fmt.Fprintf(w, "  show                          %v\n", r.ShowFull.Round(time.Millisecond))
	fmt.Fprintf(w, "  idle for %v                  %v CPU, %.1f wake-ups a second\n", r.IdleWatch, r.IdleCPUFull, perSecond(r.IdleWakesFull))
}

// curveSessions are the numbers of sessions in the curve.
var curveSessions = []int{1, 8, 64, 512}

// curveDepth is the depth of each session in the curve.
const curveDepth = 4

// measureCurve measures throughput over the number of sessions, and prints it.
func measureCurve(ctx context.Context, p *plan, targets []running) (curve []curvePoint, err error) {
	fmt.Printf("\nrandom read 4 KiB, sessions at depth %d: I/O per second, CPU µs per I/O, p99, cores that the client used\n", curveDepth)
	rs := rounds{Count: p.moreRounds, Length: p.moreLength}
	for _, n := range curveSessions {
		w := workload{name: fmt.Sprintf("%d sessions", n), client: clientLoad, bytes: small,
			run: load(loadOptions{bytes: small, reads: 100, depth: curveDepth, sessions: n})}
		res, err := rs.compare(ctx, &w, targets)
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			p := curvePoint{Target: t.name, Sessions: n, Failed: res.Failed[t.name]}
			if f := res.Figures[t.name]; f != nil {
				p.IOPS, p.CPU, p.P99, p.Client = f.IOPS, f.CPU, *f.P99, f.Client
			}
			fmt.Println(" ", &p)
			curve = append(curve, p)
		}
	}
	return curve, nil
}

// String is a line of the curve's table.
func (p *curvePoint) String() string {
	if p.Failed != "" {
		return fmt.Sprintf("%4d  %-10s could not be run: %.200s", p.Sessions, p.Target, p.Failed)
	}
	cpu := "-"
	if p.CPU != nil {
		cpu = fmt.Sprintf("%.1f", *p.CPU)
	}
	return fmt.Sprintf("%4d  %-10s %8.0f  %8s  %10v  %.2f", p.Sessions, p.Target, p.IOPS, cpu, p.P99.Round(time.Microsecond), p.Client)
}

// curveChart draws the curve.
func curveChart(curve []curvePoint, targets []string) *svgplot.Plot {
	p := &svgplot.Plot{
		Title: fmt.Sprintf("Random reads of 4 KiB, sessions at depth %d", curveDepth),
		X:     svgplot.Axis{Label: "sessions", Log: true, Min: 0.9, Max: 600},
		Y:     svgplot.Axis{Label: "I/O per second"},
	}
	for _, t := range targets {
		s := svgplot.Series{Name: t}
		for _, c := range curve {
			if c.Target == t && c.IOPS > 0 {
				s.Points = append(s.Points, svgplot.Point{X: float64(c.Sessions), Y: c.IOPS})
			}
		}
		p.Series = append(p.Series, s)
	}
	return p
}
