// SPDX-License-Identifier: Apache-2.0

// Command bench compares gotgtd with tgt and gotgt side by side: equal files on
// one file system, page cache warm, clients that no one here wrote, rounds in
// turn, medians. Then it measures the pause of upgrades.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// workload is what one client does.
type workload struct {
	name    string
	measure func(ctx context.Context, url string, d time.Duration) (float64, error) // I/Os per second
}

var workloads = []workload{
	{"random read 4 KiB, depth 1", perf("-r", "-b", "8", "-m", "1")},
	{"random read 4 KiB, depth 32", perf("-r", "-b", "8", "-m", "32")},
	{"sequential read 256 KiB, depth 8", perf("-b", "512", "-m", "8")},
	{"qemu-img read 4 KiB, depth 32", qemu(30000, "-s", "4096", "-d", "32")},
	{"qemu-img write 4 KiB, depth 32", qemu(20000, "-w", "-s", "4096", "-d", "32")},
	{"qemu-img write 256 KiB, depth 8", qemu(2000, "-w", "-s", "262144", "-d", "8")},
}

// perf measures with libiscsi's iscsi-perf, which reads.
func perf(args ...string) func(context.Context, string, time.Duration) (float64, error) {
	return func(ctx context.Context, url string, d time.Duration) (float64, error) {
		seconds := fmt.Sprint(max(1, int(d.Seconds())))
		out, err := peer.Run(ctx, "iscsi-perf", append(append([]string{"-t", seconds}, args...), url)...)
		if err != nil {
			return 0, err
		}
		return parsePerf(out)
	}
}

// qemu measures with qemu-img bench, which does a number of requests.
func qemu(count int, args ...string) func(context.Context, string, time.Duration) (float64, error) {
	return func(ctx context.Context, url string, _ time.Duration) (float64, error) {
		all := append([]string{"bench", "-f", "raw", "-t", "none", "-c", fmt.Sprint(count)}, args...)
		out, err := peer.Run(ctx, "qemu-img", append(all, url)...)
		if err != nil {
			return 0, err
		}
		return parseQEMU(out, count)
	}
}

// result is a workload's outcome: medians of I/Os per second by target.
type result struct {
	Workload string             `json:"workload"`
	IOPS     map[string]float64 `json:"iops"`
	Failed   map[string]string  `json:"failed,omitempty"`
}

func main() {
	quick := flag.Bool("quick", false, "fewer and shorter rounds")
	out := flag.String("o", filepath.Join("bench", "results", time.Now().Format("2006-01-02")+".json"), "write the results to this `FILE`")
	var more peers
	flag.Var(&more, "peer", "a further running target, `NAME=URL`; may be repeated")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, more, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// peers are the targets of the flag -peer.
type peers []running

// String implements flag.Value.
func (p *peers) String() string { return fmt.Sprint(len(*p), " peers") }

// Set implements flag.Value.
func (p *peers) Set(s string) error {
	name, url, ok := strings.Cut(s, "=")
	if !ok || !strings.HasPrefix(url, "iscsi://") {
		return fmt.Errorf("%q is not a name, '=' and an iscsi:// address", s)
	}
	*p = append(*p, running{name: name, url: url, stop: func() {}})
	return nil
}

func run(ctx context.Context, quick bool, more peers, out string) error {
	rounds, length, upgrades := 5, 3*time.Second, 500
	if quick {
		rounds, length, upgrades = 2, time.Second, 50
	}
	dir, err := os.MkdirTemp("", "gotgtd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets, g, err := startAll(ctx, dir)
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	if err != nil {
		return err
	}
	targets = append(targets, more...)
	var results []result
	for _, w := range workloads {
		r := compare(ctx, w, targets, rounds, length)
		results = append(results, r)
		printResult(os.Stdout, &r, targets)
	}
	pause, err := measurePause(ctx, g, upgrades)
	if err != nil {
		return err
	}
	fmt.Println(pause)
	b, err := json.MarshalIndent(map[string]any{"results": results, "pause": pause}, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(out), 0o755)
	}
	if err == nil {
		err = os.WriteFile(out, append(b, '\n'), 0o644)
	}
	return err
}

// compare runs a workload on each target in turn.
func compare(ctx context.Context, w workload, targets []running, rounds int, length time.Duration) result {
	r := result{Workload: w.name, IOPS: make(map[string]float64), Failed: make(map[string]string)}
	values := make(map[string][]float64)
	for range rounds {
		for _, t := range targets {
			v, err := w.measure(ctx, t.url, length)
			if err != nil {
				r.Failed[t.name] = err.Error()
				continue
			}
			values[t.name] = append(values[t.name], v)
		}
	}
	for name, v := range values {
		r.IOPS[name] = median(v)
	}
	return r
}

// printResult prints a line of the table.
func printResult(w *os.File, r *result, targets []running) {
	fmt.Fprintf(w, "%-34s", r.Workload)
	for _, t := range targets {
		v, ok := r.IOPS[t.name]
		switch {
		case !ok:
			fmt.Fprintf(w, "  %s: could not be run (%.60s)", t.name, r.Failed[t.name])
		case r.IOPS["tgt"] > 0:
			fmt.Fprintf(w, "  %s: %.0f/s (%.2f of tgt)", t.name, v, v/r.IOPS["tgt"])
		default:
			fmt.Fprintf(w, "  %s: %.0f/s", t.name, v)
		}
	}
	fmt.Fprintln(w)
}
