// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestUpgradeOfPID1(t *testing.T) {
	if err := refuseAsInit(2); err != nil {
		t.Errorf("PID 2: %v", err)
	}
	if err := refuseAsInit(1); err == nil || !strings.Contains(err.Error(), "upgraded run") {
		t.Errorf("PID 1: %v", err)
	}
}

// TestOpenToEverybody wants a warning where others than this host may use a disk
// without proof, and none elsewhere.
func TestOpenToEverybody(t *testing.T) {
	const warning = "everybody who reaches a portal"
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		disk := filepath.Join(t.TempDir(), "disk.img") + ",size=1MiB"
		d := startDaemon(t, "--disk", disk, "--listen", listen)
		if listen == "0.0.0.0:0" {
			d.waitFor(t, warning)
			continue
		}
		d.status(t)
		for len(d.lines) > 0 {
			if line := <-d.lines; strings.Contains(line, warning) {
				t.Errorf("on %s: %s", listen, line)
			}
		}
	}
}
