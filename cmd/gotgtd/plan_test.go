// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// TestPlanWithOverlay has a configuration that does not go with what tgtadm has made: every
// plan says so, as the reload does.
func TestPlanWithOverlay(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	disk := filepath.Join(filepath.Dir(file), "b.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	api := control.NewClient(d.socket)
	err := api.Change(t.Context(), overlay.Operation{Mode: "target", Op: "new", TID: 9, Target: "iqn.2026-11.test:made"},
		overlay.Operation{Mode: "logicalunit", Op: "new", TID: 9, LUN: 1, Params: []overlay.Param{{Name: "path", Value: disk}}})
	if err != nil {
		t.Fatal(err)
	}
	twice := changedConfig + "      - {lun: 2, path: b.img}\n"
	if _, err := api.Plan(t.Context(), control.Proposal{Config: twice}); err == nil || !strings.Contains(err.Error(), "tgtadm") {
		t.Errorf("POST /v1/plan: %v", err)
	}
	out := d.fail(t, "lun", "add", "iqn.2026-11.test:a", disk)
	if !strings.Contains(out, "is behind the logical unit at") || strings.Contains(out, "+ target") {
		t.Errorf("lun add prints:\n%s", out)
	}
	wantText(t, file, changedConfig)
	if err := os.WriteFile(file, []byte(twice), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"plan"}, {"upgrade", "--dry-run"}, {"upgrade"}} {
		if out := d.fail(t, args...); !strings.Contains(out, "is behind the logical unit at") {
			t.Errorf("%v prints:\n%s", args, out)
		}
	}
	// tgtadm itself is a way out.
	if err := api.Change(t.Context(), overlay.Operation{Mode: "logicalunit", Op: "delete", TID: 9, LUN: 1}); err != nil {
		t.Errorf("tgtadm --op delete: %v", err)
	}
	stopOther(t, d.status(t).PID)
}
