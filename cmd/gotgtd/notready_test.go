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

// TestPlanWithADiskMissing: where a logical unit runs without its file, which is
// missing, every way to plan and to change passes as the reload does; a file that is
// missing besides is refused by all.
func TestPlanWithADiskMissing(t *testing.T) {
	const missing = "      - {lun: 2, path: missing.img}\n"
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig+missing)
	if out := d.output(t, "plan"); out != "nothing changes\n" {
		t.Errorf("the plan is:\n%s", out)
	}
	d.output(t, "upgrade")
	d.output(t, "upgrade", "--dry-run")
	text := changedConfig + missing + "      - {lun: 3, backend: ram, size: 1MiB}\n"
	api := control.NewClient(d.socket)
	if p, err := api.Plan(t.Context(), control.Proposal{Config: text}); err != nil || len(p.Changes) != 1 {
		t.Errorf("POST /v1/plan: %+v, %v", p, err)
	}
	next := filepath.Join(t.TempDir(), "next.yaml")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.output(t, "apply", "-f", next)
	d.output(t, "lun", "add", "iqn.2026-11.test:a", "--lun", "4", "backend=ram", "size=1MiB")
	made := overlay.Operation{Mode: "target", Op: "new", TID: 9, Target: "iqn.2026-11.test:made"}
	if err := api.Change(t.Context(), made); err != nil {
		t.Errorf("tgtadm: %v", err)
	}
	d.output(t, "upgrade") // with what tgtadm has made on top
	d.output(t, "config", "convert", "-o", filepath.Join(t.TempDir(), "c.yaml"))
	d.output(t, "config", "convert", file, "-o", filepath.Join(t.TempDir(), "c.yaml"))
	st := d.status(t)
	late := 0
	for _, l := range st.Targets[0].LUNs {
		if strings.Contains(l.Error, "missing.img") {
			late++
		}
	}
	if late != 1 || len(st.Targets) != 2 {
		t.Errorf("%d logical units wait for the file, %d targets", late, len(st.Targets))
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(before, "      - {lun: 5, path: another.img}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"plan"}, {"upgrade"}, {"upgrade", "--dry-run"}, {"apply", "-f", file}} {
		if out := d.fail(t, args...); !strings.Contains(out, "another.img") || strings.Contains(out, "missing.img") {
			t.Errorf("%v, where another is missing:\n%s", args, out)
		}
	}
	stopOther(t, st.PID)
}
