// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestPreviousCommit upgrades from this build to that of the commit before and
// back, several times, under sessions that write and verify: what either of them writes
// into a snapshot the other one reads.
func TestPreviousCommit(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "gotgtd-previous")
	src := filepath.Join(dir, "src")
	build := fmt.Sprintf("cd ../.. && mkdir %[1]s && git archive HEAD~1 | tar -x -C %[1]s && cd %[1]s && go build -ldflags '-X main.version=previous' -o %[2]s ./cmd/gotgtd", src, old)
	if _, err := peer.Run(t.Context(), "sh", "-c", build); err != nil {
		t.Fatal(err)
	}
	d := start(t, builds.a.Path(t))
	regions := verifiers(t, d, func(int, *initiator.Session) error { return nil })
	for _, r := range regions {
		r.told = true
	}
	var reports []handoff.Report
	tasks := map[string]int{} // moved, by the version that wrote the snapshot
	for range 3 {
		for _, program := range []string{old, builds.b.Path(t), old, builds.a.Path(t)} {
			r := upgradeUnder(t, d, program, regions)
			if t.Failed() {
				return
			}
			reports = append(reports, *r)
			tasks[r.OldVersion] += r.Tasks
		}
	}
	logPauses(t, reports)
	if tasks["previous"] == 0 || tasks["a"]+tasks["b"] == 0 {
		t.Errorf("tasks moved, by the version that they came from: %v", tasks)
	}
}

// upgradeUnder upgrades to a program while all regions are worked on, which goes on for
// some steps after it.
func upgradeUnder(t *testing.T, d *daemon, program string, regions []*region) *handoff.Report {
	t.Helper()
	const after = 4
	done := make(chan struct{})
	var working sync.WaitGroup
	for _, r := range regions {
		working.Go(func() {
			for serving := false; !serving; {
				n := 1
				select {
				case <-done:
					n, serving = after, true
				default:
				}
				if err := r.steps(t.Context(), n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	d.install(t, program)
	report, err := d.upgrade(t)
	close(done)
	working.Wait()
	if err != nil {
		t.Errorf("upgrade: %v", err)
		return nil
	}
	if t.Failed() {
		t.Logf("that was the upgrade from version %s to %s", report.OldVersion, report.NewVersion)
	}
	return report
}
