// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/lab/counter"
	"github.com/gotgtd/gotgtd/test/peer"
)

const console = `[    0.000000] Linux version 6.1.0
[    1.203000] EXT4-fs (xvda): mounted filesystem with ordered data mode.
[    1.400000] EXT4-fs (xvda): re-mounted. Quota mode: none.
CTR 20 slowest=11ms
CTR 45 slowest=9ms
[    9.000000] xen:grant_table: Grant tables using version 1 layout
CTR 71 slowest=4012ms
CTR-END 80
[   12.000000] reboot: Power down
`

func TestConsoleWithoutError(t *testing.T) {
	if err := checkConsole(console, 80); err != nil {
		t.Error(err)
	}
}

func TestConsoleWithErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new string
		want     string
	}{
		"an I/O error":            {"[    9.0", "[    8.9] blk_update_request: I/O error, dev xvda, sector 8\n[    9.0", "dev xvda, sector 8"},
		"an error of the journal": {"[    9.0", "[    8.9] Aborting journal on device xvda-8.\n[    8.9] EXT4-fs error (device xvda): ext4_journal_check_start\n[    9.0", "EXT4-fs error"},
		"an error of the counter": {"CTR-END 80\n", "CTR-ERROR number 72: can't write slot 72: input/output error\n", "CTR-ERROR number 72"},
		"a hung task":             {"[    9.0", "[    8.9] INFO: task counter:60 blocked for more than 120 seconds.\n[    9.0", "blocked for more"},
		"a second start":          {"CTR 71", "CTR 20", `"CTR 20 slowest=4012ms" comes after number 45`},
		"a line twice":            {"CTR 71", "CTR 45", `"CTR 45 slowest=4012ms" comes after number 45`},
		"a broken number":         {"CTR 71", "CTR 7x1", `"CTR 7x1 slowest=4012ms" comes after number 45`},
		"no end":                  {"CTR-END 80\n", "", "ends with number 71, and 80 is the last one"},
		"an end too early":        {"CTR-END 80", "CTR-END 79", "ends with number 79"},
		"numbers after the end":   {"CTR-END 80\n", "CTR-END 80\nCTR 81 slowest=1ms\n", `"CTR 81 slowest=1ms" comes after number 80`},
		"an empty console":        {console, "", "ends with number 0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkConsole(strings.Replace(console, tc.old, tc.new, 1), 80)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("checkConsole = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestGaps(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var arrivals []counter.Arrival
	for i, seconds := range []float64{0, 1, 1.5, 5.5, 6, 8} {
		arrivals = append(arrivals, counter.Arrival{Number: uint64(i + 1), At: at(seconds)})
	}
	g := guest{moves: []move{{at(-5), at(-4)}, {at(2), at(3)}}}
	if gap, after := longestGap(arrivals, func(_, _ time.Time) bool { return false }); gap != 4*time.Second || after != 3 {
		t.Errorf("the longest gap is %v after %d, want 4s after 3", gap, after)
	}
	if gap, after := longestGap(arrivals, g.migrating); gap != 2*time.Second || after != 5 {
		t.Errorf("the longest gap outside of the migration is %v after %d, want 2s after 5", gap, after)
	}

	records := make([]counter.Record, 5)
	for i := range records {
		records[i] = counter.Record{Number: uint64(i + 1), Slowest: time.Duration(i) * time.Millisecond}
	}
	io, gaps := operations(arrivals, records)
	if len(io) != 4 || io[2].Took != 3*time.Millisecond || !io[2].Start.Equal(at(1.5)) {
		t.Errorf("the guest's operations are %v", io)
	}
	if len(gaps) != 4 || gaps[2].Took != 4*time.Second || !gaps[2].Start.Equal(at(1.5)) {
		t.Errorf("the gaps are %v", gaps)
	}
}

func TestGuestConfigNamesTheDisk(t *testing.T) {
	text := guestConfig(lab.DevicePath(peer.IQN, portal, 1))
	want := "'phy:/dev/disk/by-path/ip-172.16.31.1:3260-iscsi-iqn.2015-02.com.stu31:t1-lun-1,xvda,w'"
	if !strings.Contains(text, want) || strings.Contains(text, "@") {
		t.Errorf("%s is not in\n%s", want, text)
	}
}
