// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
)

// workload is what one client does to each target in turn.
type workload struct {
	name   string
	client string // the program that does it
	bytes  int    // of one command
	writes bool
	goal   bool // a goal is about it: measured longer, and in quick runs too
	open   bool // commands are due at fixed times
	run    client
}

// The clients' names.
const (
	clientPerf = "iscsi-perf"
	clientQEMU = "qemu-img bench"
	clientLoad = "load generator"
)

const (
	small = 4 << 10   // bytes of a random command
	large = 256 << 10 // bytes of a sequential command
)

// depths are commands under way in one session.
var depths = []int{1, 8, 32, 128}

// sessionCounts are sessions at once, each at depthOfMany.
var sessionCounts = []int{1, 8, 64}

const depthOfMany = 8

// openRate is the rate of the open loop in commands per second: one that every
// target can keep up with.
const openRate = 4000

// qemuStride is the distance between the requests of qemu-img bench in bytes: a
// prime number of blocks, so that it goes all over a disk without a pattern
// that read-ahead could see.
const qemuStride = 12281 * small

// workloads are those of a whole run, in order. Clients that no one here wrote
// come first: the goals are theirs wherever they can tell.
func workloads() []workload {
	var all []workload
	for _, d := range depths {
		all = append(all, workload{name: readName(d), client: clientPerf, bytes: small,
			run: perf("-r", "-b", strconv.Itoa(small/512), "-m", strconv.Itoa(d))})
	}
	for _, d := range depths {
		all = append(all, workload{name: writeName(d), client: clientQEMU, bytes: small, writes: true,
			run: qemu(500, "-w", "-s", strconv.Itoa(small), "-S", strconv.Itoa(qemuStride), "-d", strconv.Itoa(d))})
	}
	all = append(all,
		workload{name: sequentialRead, client: clientPerf, bytes: large, run: perf("-b", strconv.Itoa(large/512), "-m", "8")},
		workload{name: sequentialWrite, client: clientQEMU, bytes: large, writes: true, run: qemu(50, "-w", "-s", strconv.Itoa(large), "-d", "8")},
	)
	add := func(name string, o loadOptions) {
		all = append(all, workload{name: name, client: clientLoad, bytes: o.bytes, writes: o.reads < 100, open: o.rate > 0, run: load(o)})
	}
	for _, d := range depths {
		add(readName(d), loadOptions{bytes: small, reads: 100, depth: d})
	}
	for _, d := range depths {
		add(writeName(d), loadOptions{bytes: small, depth: d})
	}
	add(sequentialRead, loadOptions{bytes: large, reads: 100, sequential: true, depth: 8})
	add(sequentialWrite, loadOptions{bytes: large, sequential: true, depth: 8})
	add(mixed, loadOptions{bytes: small, reads: 70, depth: 32})
	for _, n := range sessionCounts {
		add(sessionsName(n), loadOptions{bytes: small, reads: 100, depth: depthOfMany, sessions: n})
	}
	add(readName(32)+", digests", loadOptions{bytes: small, reads: 100, depth: 32, digests: true})
	add(sequentialRead+", digests", loadOptions{bytes: large, reads: 100, sequential: true, depth: 8, digests: true})
	add(sequentialWrite+", digests", loadOptions{bytes: large, sequential: true, depth: 8, digests: true})
	add("random read 512 B, depth 32", loadOptions{bytes: 512, reads: 100, depth: 32})
	add("random write 512 B, depth 32", loadOptions{bytes: 512, depth: 32})
	add(openLoop,
		loadOptions{bytes: small, reads: 100, depth: 128, rate: openRate})
	for i := range all {
		all[i].goal = slices.ContainsFunc(goals, func(g goal) bool { return g.workload == all[i].name && g.client == all[i].client })
	}
	// What goals are about first, so that it has its share of the time for certain.
	slices.SortStableFunc(all, func(a, b workload) int {
		switch {
		case a.goal == b.goal:
			return 0
		case a.goal:
			return -1
		default:
			return 1
		}
	})
	return all
}

const (
	sequentialRead  = "sequential read 256 KiB, depth 8"
	sequentialWrite = "sequential write 256 KiB, depth 8"
	mixed           = "random 4 KiB, 70 % reads, depth 32"
)

var openLoop = fmt.Sprintf("random read 4 KiB, %d a second (open loop)", openRate)

func readName(depth int) string  { return fmt.Sprintf("random read 4 KiB, depth %d", depth) }
func writeName(depth int) string { return fmt.Sprintf("random write 4 KiB, depth %d", depth) }
func sessionsName(n int) string {
	return fmt.Sprintf("random read 4 KiB, %d sessions at depth %d", n, depthOfMany)
}
