// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
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

// TestNumberOfStore: a disk keeps its number under another spelling of its path, by another
// link and, if it can't be another file, under another name. What can't be opened is known by
// its path.
func TestNumberOfStore(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "z"), filepath.Join(dir, "other")
	for _, path := range []string{file, other} {
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(file, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	id, _, err := storage.Identify(file)
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(dir, "gone")
	old, later := time.Unix(1, 0), time.Now().Add(time.Hour)
	for _, tt := range []struct {
		what, path, known string
		number            StoreNumber
		want              uint16
	}{
		{"as it was", file, file, StoreNumber{LUN: 7, Path: file}, 7},
		{"another spelling", dir + "/d/../z", file, StoreNumber{LUN: 7, Path: file}, 7},
		{"another spelling of what can't be opened", dir + "/./missing", dir + "/missing", StoreNumber{LUN: 7, Path: dir + "/missing"}, 7},
		{"a link", filepath.Join(dir, "a"), file, StoreNumber{LUN: 7, Path: file}, 7},
		{"a link's file", file, filepath.Join(dir, "a"), StoreNumber{LUN: 7, Path: filepath.Join(dir, "a")}, 7},
		{"renamed, and it was there", file, gone, StoreNumber{LUN: 7, Path: gone, Existed: later}, 7},
		{"renamed, and open all the time", file, gone, StoreNumber{LUN: 7}, 7},
		{"younger than the one that had the inode", file, gone, StoreNumber{LUN: 7, Path: gone, Existed: old}, 1},
		{"another may have had the inode", file, gone, StoreNumber{LUN: 7, Path: gone}, 1},
		{"another file at the path", other, other, StoreNumber{LUN: 7, Path: other}, 7},
	} {
		known := Numbers{}
		known.Set("iqn.2026-11.test:m", 1, tt.known, tt.number.LUN)
		known.SetStore("iqn.2026-11.test:m", id, tt.number)
		c, errs := parse("targets.conf", []byte("<target iqn.2026-11.test:m>\nbacking-store "+tt.path+"\n</target>\n"), known)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if got := c.Targets[0].LUNs[0].Number; got != tt.want {
			t.Errorf("%s: LUN %d, want %d", tt.what, got, tt.want)
		}
	}
}

// TestExchangedFiles: two files that exchange their names take their numbers along.
func TestExchangedFiles(t *testing.T) {
	dir := t.TempDir()
	known := Numbers{}
	text := "<target iqn.2026-11.test:m>\n"
	for i, name := range []string{"a", "b"} {
		path, becomes := filepath.Join(dir, name), filepath.Join(dir, string("ba"[i]))
		if err := os.WriteFile(becomes, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		id, _, err := storage.Identify(becomes)
		if err != nil {
			t.Fatal(err)
		}
		known.Set("iqn.2026-11.test:m", 1, path, uint16(i+1))
		known.SetStore("iqn.2026-11.test:m", id, StoreNumber{LUN: uint16(i + 1)})
		text += "backing-store " + path + "\n"
	}
	c, errs := parse("targets.conf", []byte(text+"</target>\n"), known)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if got, _ := numbersOf(c, dir); got["m/a"][:3] != "1.2" || got["m/b"][:3] != "1.1" {
		t.Errorf("the numbers are %v", got)
	}
}

// TestLastTID: behind the highest TID that there can be come those that are free, then
// those of what is gone, and then an error that names the target.
func TestLastTID(t *testing.T) {
	all := func(except int) Numbers {
		known := Numbers{}
		for tid := 1; tid <= MaxTID; tid++ {
			if tid != except {
				known.Set(fmt.Sprintf("iqn.2026-11.test:%d", tid), tid, "", 0)
			}
		}
		return known
	}
	last := Numbers{}
	last.Set("iqn.2026-11.test:last", MaxTID, "", 0)
	last.Set("iqn.2026-11.test:first", 1, "", 0)
	for _, tt := range []struct {
		what  string
		known Numbers
		want  int
	}{{"the last is given", last, 2}, {"one is free", all(300), 300}, {"all are of what is gone", all(0), 1}} {
		for format, text := range map[string]string{"x.conf": "<target iqn.2026-11.test:new>\n</target>\n", "x.yaml": "targets:\n  - name: iqn.2026-11.test:new\n"} {
			c, errs := parse(format, []byte(text), tt.known)
			if len(errs) > 0 || c.Targets[0].TID != tt.want {
				t.Errorf("%s, %s: TID %d, want %d (%v)", tt.what, format, c.Targets[0].TID, tt.want, errs)
			}
		}
	}
	taken := map[int]bool{}
	for tid := 1; tid <= MaxTID; tid++ {
		taken[tid] = true
	}
	if tid, err := last.nextTID(0, taken); err == nil || !strings.Contains(err.Error(), "no TID left") {
		t.Errorf("with all taken: %d, %v", tid, err)
	}
}
