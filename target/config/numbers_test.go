// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// numbersOf returns the numbers and identities of a configuration by target
// and path, and what a running target would know of it.
func numbersOf(c *Config, dir string) (got map[string]string, known Numbers) {
	got, known = map[string]string{}, Numbers{}
	for _, t := range c.Targets {
		known.Set(t.Name, t.TID, "", 0)
		for _, l := range t.LUNs {
			known.Set(t.Name, t.TID, l.Path, l.Number)
			got[t.Name[len(t.Name)-1:]+strings.TrimPrefix(l.Path, dir)] = fmt.Sprintf("%d.%d %s", t.TID, l.Number, l.NAA[24:])
		}
	}
	return got, known
}

// TestNumbersStay adds targets and disks before and between those that are
// there, takes some away, and puts them back.
func TestNumbersStay(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target := func(name string, stores ...string) string {
		text := "<target iqn.2026-11.test:" + name + ">\n"
		for _, s := range stores {
			text += "  backing-store " + s + "\n"
		}
		return text + "</target>\n"
	}
	known := Numbers{}
	for _, step := range []struct {
		what, file string
		want       map[string]string
	}{
		{"first", target("m", "b", "c"), map[string]string{"m/b": "1.1 00010001", "m/c": "1.2 00010002"}},
		{
			"two targets at once, about the one that is there", target("a", "d") + target("m", "b", "c") + target("z", "a"),
			map[string]string{"a/d": "2.1 00020001", "m/b": "1.1 00010001", "m/c": "1.2 00010002", "z/a": "3.1 00030001"},
		},
		{"a disk before", target("m", "a", "b", "c"), map[string]string{"m/a": "1.3 00010003", "m/b": "1.1 00010001", "m/c": "1.2 00010002"}},
		{
			"a target before", target("a", "d") + target("m", "b", "c"),
			map[string]string{"a/d": "2.1 00020001", "m/b": "1.1 00010001", "m/c": "1.2 00010002"},
		},
		{
			"targets before and behind", target("a", "d") + target("m", "b") + target("y", "a") + target("z", "c"),
			map[string]string{"a/d": "2.1 00020001", "m/b": "1.1 00010001", "y/a": "3.1 00030001", "z/c": "4.1 00040001"},
		},
		{"a target less", target("a", "d"), map[string]string{"a/d": "2.1 00020001"}},
		{
			"a number that the file gives", target("a", "d") + "<target iqn.2026-11.test:m>\n<backing-store a>\nlun 1\n</backing-store>\nbacking-store b\n</target>\n",
			map[string]string{"a/d": "2.1 00020001", "m/a": "1.1 00010001", "m/b": "1.3 00010003"},
		},
	} {
		file := filepath.Join(dir, "targets.conf")
		if err := os.WriteFile(file, []byte(step.file), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadNumbered(file, known)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		got, now := numbersOf(c, dir)
		if d := cmp.Diff(step.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, d)
		}
		if step.what == "first" || step.what == "a target before" {
			known = now
		}
	}
}

// TestTgtNAA has what tgtd 1.0.85 answers in VPD page 83h for these SCSI IDs.
func TestTgtNAA(t *testing.T) {
	for id, want := range map[string]string{
		"IET     00010001":                     "60000000000000000e00000000010001",
		"hosta-lun1":                           "60000000000000000000000000a00001",
		"deadbeef:vol0003":                     "6000000000000000deadbeef00000003",
		"0123456789abcdef0123456789abcdef":     "6123456789abcdef0123456789abcdef",
		"abcdefabcdefabcdefabcdefabcdefabcdef": "6fabcdefabcdefabcdefabcdefabcdef",
		"1":                                    "60000000000000000000000000000001",
	} {
		if got := scsi.TgtNAA(id); got != want {
			t.Errorf("of %q: %s, want %s", id, got, want)
		}
	}
}

// TestYAMLNumbersStay is the same for TIDs, which have no part in identities there.
func TestYAMLNumbersStay(t *testing.T) {
	known := Numbers{}
	known.Set("iqn.2026-11.test:m", 1, "", 0)
	known.Set("iqn.2026-11.test:gone", 2, "", 0)
	text := "targets:\n  - name: iqn.2026-11.test:a\n  - name: iqn.2026-11.test:m\n"
	c, errs := parse("x.yaml", []byte(text), known)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if c.Targets[0].TID != 3 || c.Targets[1].TID != 1 {
		t.Errorf("TIDs %d and %d, want 3 and 1", c.Targets[0].TID, c.Targets[1].TID)
	}
}
