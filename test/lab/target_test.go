// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeTarget has programs that answer as upgraded and gotgtd do. Each line of reloads, the
// last one again and again, is what a reload says as it fails; an empty one has it succeed.
func fakeTarget(t *testing.T, reloads string) *Target {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("reloads", reloads+"\n", 0o600)
	write("upgraded", fmt.Sprintf(`#!/bin/sh
cd %s
why=$(head -n 1 reloads)
[ "$(wc -l <reloads)" -eq 1 ] || sed -i 1d reloads
[ -z "$why" ] || { echo "upgraded: reload: upgrade failed: $why" >&2; exit 1; }
`, dir), 0o700)
	write("gotgtd", `#!/bin/sh
echo '{"upgrades": [{"pause": 7000000}]}'
`, 0o700)
	l := &Lab{out: new(bytes.Buffer), programs: dir, report: newReport(Suite{Name: "try"})}
	return &Target{lab: l, dir: dir, program: l.Program("gotgtd")}
}

const late = "waiting for PREPARED: i/o timeout (the pause reached its limit of 4s)"

func TestUpgradeIsTriedAgain(t *testing.T) {
	target := fakeTarget(t, late+"\n")
	pause, err := target.Upgrade(t.Context())
	if err != nil || pause != 7*time.Millisecond {
		t.Errorf("pause %v, %v", pause, err)
	}
	var events []string
	for _, m := range target.lab.report.marks {
		events = append(events, m.event)
	}
	if got, want := strings.Join(events, ", "), "upgrade, upgrade rolled back, upgrade"; got != want {
		t.Errorf("the report has %s, want %s", got, want)
	}
}

func TestUpgradesThatFail(t *testing.T) {
	for name, tc := range map[string]struct {
		reloads string
		want    string
		tries   int
	}{
		"for another reason":   {"the next generation has ended\n", "has ended", 1},
		"at the limit, always": {late, "2 of 2 upgrades were rolled back", 2},
	} {
		t.Run(name, func(t *testing.T) {
			target := fakeTarget(t, tc.reloads)
			_, err := target.Upgrade(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) || target.upgrades != tc.tries {
				t.Errorf("after %d tries: %v", target.upgrades, err)
			}
		})
	}
}

func TestRollBacksAreFew(t *testing.T) {
	for upgrades, want := range map[int]int{1: 1, 99: 1, 100: 2, 250: 3} {
		if got := (&Target{upgrades: upgrades}).mayRollBack(); got != want {
			t.Errorf("%d of %d may be rolled back, want %d", got, upgrades, want)
		}
	}
}
