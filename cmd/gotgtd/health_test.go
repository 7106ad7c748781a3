// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStatus is a health check before, while and after a daemon serves one disk that is
// there and one that is not.
func TestStatus(t *testing.T) {
	d, _ := startConfigured(t, "gotgtd.yaml", changedConfig+"      - {lun: 2, path: missing.img}\n")
	const want = "generation 1, targets 1, logical units 2 (1 not ready), sessions 0"
	if out := d.output(t, "status"); !strings.HasPrefix(out, "serving: version ") || !strings.HasSuffix(out, want+"\n") {
		t.Errorf("status prints %q, not %q", out, want)
	}
	if out := d.fail(t, "status", "--ready"); !strings.Contains(out, want+": gotgtd show has the reasons") {
		t.Errorf("status --ready fails with %q", out)
	}
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	if out := d.fail(t, "status"); !strings.Contains(out, "can't reach gotgtd through") {
		t.Errorf("without a daemon, status fails with %q", out)
	}
}
