// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestPreviousCommit upgrades from this build to that of the commit before and
// back, several times. Sessions of every kind write and read meanwhile, at depths 1, 8, 16 and
// 64, and every block that is read is checked; at the end, all that was written is.
func TestPreviousCommit(t *testing.T) {
	old := buildPrevious(t)
	d := start(t, builds.a.Path(t))
	var verifiers []*initiator.Verifier
	for i, w := range workloads(t, d) {
		verifiers = append(verifiers, &initiator.Verifier{
			Session: w.session, LUN: initiator.LUN(1), First: w.first, Blocks: w.blocks, BlockSize: blockSize,
			MinDepth: w.depth, MaxDepth: w.depth, FUAPercent: 5, FlushEvery: 100, Seed: uint64(i + 1),
			MaxDuration: time.Minute, // an upgrade ends it much earlier
		})
	}
	var reports []handoff.Report
	tasks, work := map[bool]int{}, map[bool]initiator.VerifierResult{} // by whether the commit before wrote the snapshot
	for range 3 {
		for _, program := range []string{old, builds.b.Path(t), old, builds.a.Path(t)} {
			r, done := upgradeUnder(t, d, program, verifiers)
			if t.Failed() {
				return
			}
			reports = append(reports, *r)
			back := r.OldVersion == previous
			tasks[back] += r.Tasks
			work[back] = sum(work[back], done)
		}
	}
	logPauses(t, reports)
	for back, direction := range map[bool]string{false: "to the commit before", true: "from the commit before"} {
		t.Logf("upgrades %s: %d tasks moved, %+v", direction, tasks[back], work[back])
		if w := work[back]; tasks[back] == 0 || w.Reads == 0 || w.Writes == 0 || w.BlocksChecked == 0 {
			t.Errorf("the upgrades %s show nothing", direction)
		}
	}
	for _, v := range verifiers {
		all, err := v.CheckAll(t.Context())
		if err != nil || all.BlocksChecked == 0 {
			t.Errorf("at the end: %d blocks checked, %v", all.BlocksChecked, err)
		}
	}
}

// previous is what the build of the commit before says its version is.
const previous = "previous"

// buildPrevious builds gotgtd as of the commit before.
func buildPrevious(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	program, src := filepath.Join(dir, "gotgtd-previous"), filepath.Join(dir, "src")
	build := fmt.Sprintf("cd ../.. && mkdir %[1]s && git archive HEAD~1 | tar -x -C %[1]s && cd %[1]s && go build -ldflags '-X main.version=%[3]s' -o %[2]s ./cmd/gotgtd", src, program, previous)
	if _, err := peer.Run(t.Context(), "sh", "-c", build); err != nil {
		t.Fatal(err)
	}
	return program
}

// sum adds what two runs of verifiers have done.
func sum(a, b initiator.VerifierResult) initiator.VerifierResult {
	return initiator.VerifierResult{
		Reads: a.Reads + b.Reads, Writes: a.Writes + b.Writes, Flushes: a.Flushes + b.Flushes,
		BytesRead: a.BytesRead + b.BytesRead, BytesWritten: a.BytesWritten + b.BytesWritten, BlocksChecked: a.BlocksChecked + b.BlocksChecked,
	}
}

// upgradeUnder upgrades to a program while all verifiers work, and has them go on for some
// commands with the successor alone.
func upgradeUnder(t *testing.T, d *daemon, program string, verifiers []*initiator.Verifier) (*handoff.Report, initiator.VerifierResult) {
	t.Helper()
	const after = 100 // commands
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make([]initiator.VerifierResult, len(verifiers))
	var working sync.WaitGroup
	for i, v := range verifiers {
		working.Go(func() {
			through, err := verify(ctx, v, 0)
			if err == nil {
				results[i], err = verify(t.Context(), v, after)
			}
			if err != nil {
				t.Error(err)
			}
			results[i] = sum(results[i], through)
		})
	}
	d.install(t, program)
	report, err := d.upgrade(t)
	cancel()
	working.Wait()
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	if t.Failed() {
		t.Logf("that was the upgrade from version %s to %s", report.OldVersion, report.NewVersion)
	}
	var total initiator.VerifierResult
	for _, r := range results {
		total = sum(total, r)
	}
	return report, total
}

// verify has a verifier work until ctx ends, or for a number of commands, 0 for no bound. It goes on, as
// every initiator does, where a command was ended by INQUIRY DATA or CAPACITY DATA HAS CHANGED: another
// version may tell something else of a disk.
func verify(ctx context.Context, v *initiator.Verifier, commands int64) (total initiator.VerifierResult, err error) {
	const unitAttention, inquiryData, capacity = 6, 0x3f03, 0x2a09
	v.MaxCommands = commands
	for range 3 {
		var done initiator.VerifierResult
		done, err = v.Run(ctx)
		total = sum(total, done)
		var status *initiator.StatusError
		if !errors.As(err, &status) {
			break
		}
		if key, code := initiator.DecodeSense(status.Sense); key != unitAttention || code != inquiryData && code != capacity {
			break
		}
	}
	return total, err
}
