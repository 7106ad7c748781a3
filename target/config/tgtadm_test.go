// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTgtDefaults has what tgtd 1.0.85 gives a disk unless the file says otherwise.
func TestTgtDefaults(t *testing.T) {
	type told struct {
		Thin, Layout       bool
		Exponent, Rotation int
	}
	for directives, want := range map[string]told{
		"":                           {false, true, 3, 0},
		"block-size 4096":            {false, true, 0, 0},
		"block-size 4096\nlbppbe 1":  {false, true, 1, 0},
		"params thin_provisioning=1": {true, true, 3, 0},
		"thin_provisioning 1\nlbppbe 0\nparams rotation_rate=1": {true, true, 0, 1},
	} {
		l := mustParse(t, "/etc/tgt/targets.conf", inTarget("controller_tid 5\n<backing-store /dev/a>\nlun 7\n"+directives+"\n</backing-store>")).Targets[0].LUNs[0]
		got := told{*l.Thin, l.TgtIdentification, *l.PhysicalBlockExponent, *l.RotationRate}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", directives, d)
		}
	}
}

func TestRotationRate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.yaml")
	for rate, ok := range map[int]bool{0: true, 1: true, 2: false, 1024: false, 1025: true, 65534: true, 65535: false, -1: false} {
		write(t, name, fmt.Sprintf("targets:\n  - name: iqn.2026-11.test:a\n    luns:\n      - {lun: 1, backend: ram, size: 1M, rotation-rate: %d}\n", rate))
		c, err := Load(name)
		if (err == nil) != ok {
			t.Errorf("%d: %v", rate, err)
		}
		if ok && err == nil && *c.Targets[0].LUNs[0].RotationRate != rate {
			t.Errorf("%d: %+v", rate, c.Targets[0].LUNs[0])
		}
		if want := fmt.Sprintf("%d is none of 0 (not told)", rate); !ok && err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", rate, err)
		}
	}
}

// TestSameDigits has scsi_ids of which tgt makes one NAA identifier.
func TestSameDigits(t *testing.T) {
	dir := t.TempDir()
	unit := func(n int, id string) string {
		path := filepath.Join(dir, fmt.Sprint(n, ".img"))
		write(t, path, strings.Repeat("0123456789abcdef", 32))
		return fmt.Sprintf("<backing-store %s>\nlun %d\nscsi_id %s\n</backing-store>\n", path, n, id)
	}
	name := filepath.Join(dir, "targets.conf")
	both := []string{`"host-a1"`, `"kost-a1"`, "600000000000000000000000000000a1"}
	check := func(what string, got error, wanted ...string) {
		t.Helper()
		for _, w := range wanted {
			if got == nil || !strings.Contains(got.Error(), w) {
				t.Errorf("%s: no %q in %v", what, w, got)
			}
		}
	}

	write(t, name, inTarget(unit(1, "kost-a1")+unit(2, "host-a1")))
	_, err := Load(name)
	check("one target", err, append(both, name+":8:9: scsi_id:", name+":4:9", "other digits")...)

	write(t, name, inTarget(unit(1, "kost-a1"))+strings.Replace(inTarget(unit(2, "host-a1")), "example:a", "example:b", 1))
	c, err := Load(name)
	if err != nil {
		t.Fatalf("two targets: %v", err)
	}
	check("two targets", errors.Join(c.Warnings), append(both, "logs in to both targets", "other digits")...)

	write(t, name, inTarget(unit(1, "kost-a1")+unit(2, "host-a2")))
	if _, err := Load(name); err != nil {
		t.Errorf("other digits: %v", err)
	}
}
