// SPDX-License-Identifier: Apache-2.0

// Package interop tests gotgtd with initiators that no one here wrote: libiscsi's
// conformance suite and tools, and QEMU's. `make test` installs them.
package interop

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

var (
	onTgt  = flag.Bool("tgt", false, "run against Debian's tgt, to see what is the initiator's own doing")
	update = flag.Bool("update", false, "write the list of skipped tests into docs/conformance.md")
)

// program is the gotgtd under test, built with the race detector unless the tests are to be
// short.
var program = peer.NewProgram("gotgtd", func(ctx context.Context, path string) error {
	if testing.Short() {
		return peer.GoBuild(ctx, path, "../../cmd/gotgtd")
	}
	return peer.GoBuild(ctx, path, "../../cmd/gotgtd", "-race")
})

// upgradedProgram is the supervisor of the tests with tgt's tools.
var upgradedProgram = peer.GoProgram("upgraded", "../../cmd/upgraded")

// gotgtd is the path of program.
func gotgtd(t *testing.T) string {
	t.Helper()
	if !testing.Short() {
		peer.Need(t, "gcc") // for -race
	}
	return program.Path(t)
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(peer.Main(m, program, upgradedProgram))
}

// start runs the target under test for as long as the test runs. When the test
// has failed, the end of the target's log is shown.
func start(t *testing.T, o peer.Options) peer.Target {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	var target peer.Target
	var err error
	if *onTgt {
		peer.Need(t, "tgtd")
		target, err = peer.StartTgt(t.Context(), o)
	} else {
		target, err = peer.StartGotgtd(t.Context(), gotgtd(t), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Stop(); err != nil {
			t.Errorf("the target did not end in order: %v", err)
		}
		if t.Failed() {
			log := target.Log()
			if race := strings.Index(log, "WARNING: DATA RACE"); race >= 0 {
				t.Logf("the first data race:\n%.4096s", log[race:])
			}
			t.Logf("the target's log:\n%s", lastLines(log, 60))
		}
	})
	return target
}

// thin are directives for a disk that can give space back, which one from a targets.conf
// does only when it is asked to.
const thin = "params thin_provisioning=1"

// startDisk serves a new sparse disk of so many bytes as LUN 1 and returns its
// URLs, one for each portal, and the file that holds it.
func startDisk(t *testing.T, size int64, portals int, directives string) (target peer.Target, urls []string, file string) {
	t.Helper()
	return startDiskWith(t, size, directives, peer.Options{Portals: portals})
}

// startDiskWith is startDisk with more options.
func startDiskWith(t *testing.T, size int64, directives string, o peer.Options) (target peer.Target, urls []string, file string) {
	t.Helper()
	file = sparse(t, "disk.img", size)
	o.Config = peer.OneDisk(file, directives)
	target = start(t, o)
	for _, p := range target.Portals() {
		urls = append(urls, peer.URL(p, peer.IQN, 1))
	}
	return target, urls, file
}

// sparse makes a file of so many bytes without contents.
func sparse(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// must runs a program that has to succeed and returns what it printed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	peer.Need(t, name)
	out, err := peer.Run(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refuses runs a program that has to fail, and returns what it printed.
func refuses(t *testing.T, name string, args ...string) string {
	t.Helper()
	peer.Need(t, name)
	out, err := peer.Run(t.Context(), name, args...)
	if err == nil {
		t.Fatalf("%s %q succeeded:\n%s", name, args, out)
	}
	return out
}

// contains fails the test when text lacks one of the wanted strings.
func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
