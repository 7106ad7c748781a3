// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/histogram"
)

// madeUp is a report of one workload that a goal is about, with round figures.
func madeUp() *report {
	w := workload{name: readName(32), client: clientPerf, bytes: small}
	at := func(rate float64, cpu, client time.Duration) *figures {
		slow := &sample{rate: rate / 2, commands: rate / 2, cpu: cpu / 2, client: client}
		fast := &sample{rate: rate * 2, commands: rate * 2, cpu: cpu * 2, client: client}
		return summarize([]*sample{fast, {rate: rate, commands: rate, cpu: cpu, client: client}, slow}, &w)
	}
	res := &result{Workload: w.name, Client: w.client, Bytes: w.bytes, Rounds: rounds{Count: 3},
		Figures: map[string]*figures{
			"gotgtd":  at(80_000, 800*time.Millisecond, 950*time.Millisecond),
			"tgt":     at(20_000, 900*time.Millisecond, 300*time.Millisecond),
			ceiling:   at(100_000, 400*time.Millisecond, time.Second),
			"another": at(90_000, 900*time.Millisecond, time.Second),
		},
		Failed: map[string]string{"istgt": "it\nwould not"},
	}
	r := &report{Targets: []string{"gotgtd", "tgt", "istgt", ceiling, "another"}, Results: []*result{res}}
	r.Machine.Cores = 2
	r.Goals = judge(r.Results, r.Targets)
	r.Missing = res.missing(r.Targets)
	return r
}

func TestGoalsAreJudged(t *testing.T) {
	want := map[string]string{ // by metric and other target
		throughput.name + " tgt": "reached", throughput.name + " " + ceiling: "reached",
		throughput.name + " istgt": "not measured", throughput.name + " another": "NOT REACHED",
		cpuPerIO.name + " tgt": "reached", cpuPerIO.name + " " + ceiling: "reached",
		cpuPerIO.name + " istgt": "not measured", cpuPerIO.name + " another": "reached",
	}
	for _, v := range madeUp().Goals {
		key := v.Metric + " " + v.Against
		if v.Workload != readName(32) {
			if v.Measured || v.Reached {
				t.Errorf("%s of %s is judged without having been run", key, v.Workload)
			}
			continue
		}
		if got := v.outcome(); got != want[key] {
			t.Errorf("%s: %s (%.2f, bound %.2f), want %s", key, got, v.Ratio, v.Bound, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("not judged: %v", want)
	}
}

// What a run writes into its file has all that the tables need.
func TestTablesFromTheFile(t *testing.T) {
	r := madeUp()
	path := filepath.Join(t.TempDir(), "results", "run.json")
	if err := writeJSON(path, r); err != nil {
		t.Fatal(err)
	}
	var direct, read strings.Builder
	if err := errors.Join(r.writeTables(&direct), printTables(&read, path)); err != nil {
		t.Fatal(err)
	}
	if direct.String() != read.String() {
		t.Errorf("the tables differ; from the file:\n%s\nfrom the run:\n%s", &read, &direct)
	}
	for _, line := range []string{
		`| random read 4 KiB, depth 32 | 80000 \* (40000..160000) | 20000 (10000..40000) | - | 100000 \* (50000..200000) | 90000 \* (45000..180000) | 4.00 | 0.80 |`,
		`| random read 4 KiB, depth 32 | 10.0 | 45.0 | - | 4.0 | 10.0 | 0.22 | 2.50 |`,
		`4.00 (≥ 3.50: reached) | 0.80 (≥ 0.80: reached) | ≥ 1.00: not measured | 0.89 (≥ 1.00: NOT REACHED)`,
		`* random read 4 KiB, depth 32 (iscsi-perf) on istgt: it would not`,
	} {
		if !strings.Contains(direct.String(), line) {
			t.Errorf("the tables lack %q:\n%s", line, &direct)
		}
	}
}

// A target that fails is left out, the others have all their rounds, and what
// the time is not enough for is told.
func TestRounds(t *testing.T) {
	h := new(histogram.Histogram)
	h.Record(time.Millisecond)
	w := workload{name: "w", client: clientLoad, bytes: small, run: func(_ context.Context, target *running, _ time.Duration) (*sample, error) {
		if target.name == "broken" {
			return nil, errors.New("broken")
		}
		return &sample{rate: 10, commands: 10, latency: h}, nil
	}}
	targets := []running{{name: "sound"}, {name: "broken"}}
	rs := rounds{Count: 3}
	res, err := rs.compare(t.Context(), &w, targets)
	if err != nil {
		t.Fatal(err)
	}
	if f := res.Figures["sound"]; f == nil || len(f.Rounds) != 3 || f.P999 == nil || *f.P999 != time.Millisecond {
		t.Errorf("the sound target has %+v", f)
	}
	if res.Figures["broken"] != nil || res.Failed["broken"] == "" {
		t.Errorf("the broken target has %+v, %q", res.Figures["broken"], res.Failed["broken"])
	}
	rs.limit = 1
	if res, err = rs.compare(t.Context(), &w, targets[:1]); err != nil {
		t.Fatal(err)
	}
	if lines := res.missing([]string{"sound"}); len(lines) != 1 || !strings.Contains(lines[0], "1 of 3 rounds") {
		t.Errorf("told of a run that was cut short: %q", lines)
	}
}

func TestParseUnit(t *testing.T) {
	const url = "iscsi://127.0.0.1:3260/iqn.2015-02.com.stu31:t1/7"
	u, err := parseUnit(url)
	if err != nil || u != (unit{"127.0.0.1:3260", "iqn.2015-02.com.stu31:t1", 7}) || u.String() != url {
		t.Errorf("%s is %+v, %v", url, u, err)
	}
	for _, bad := range []string{"", "iscsi://127.0.0.1/t/1", "iscsi://127.0.0.1:1/t", "iscsi://127.0.0.1:1//1", "http://127.0.0.1:1/t/1", "iscsi://127.0.0.1:1/t/99999"} {
		if u, err := parseUnit(bad); err == nil {
			t.Errorf("%q is %+v", bad, u)
		}
	}
}

// Every workload that a goal is about is there, and first.
func TestWorkloads(t *testing.T) {
	seen := make(map[string]bool)
	others := false
	for _, w := range workloads() {
		key := w.name + " (" + w.client + ")"
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if others = others || !w.goal; w.goal && others {
			t.Errorf("%s comes behind workloads without a goal", key)
		}
	}
	for _, g := range goals {
		if key := g.workload + " (" + g.client + ")"; !seen[key] {
			t.Errorf("a goal is about %s, which is not there", key)
		}
	}
}
