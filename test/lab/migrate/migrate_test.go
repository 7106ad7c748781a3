// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
)

// TestDocument: what the suite does is what the document says, line by line and in its order.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for _, script := range []string{runningNumbers, fileNumbers, checkFile, copyFile, dropIn, checkAsService, changeOver, goBack} {
		for line := range strings.Lines(script) {
			_, after, ok := strings.Cut(rest, "       "+strings.TrimSpace(line))
			if !ok {
				t.Fatalf("docs/migrating.md does not go on with %q", line)
			}
			rest = after
		}
	}
}

// TestConfigurations reads what the steps have served. The numbers that are written down are those
// that everything has been given first.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	load := func(c configuration, withArchive bool, known config.Numbers) string {
		t.Helper()
		c.dir = dir
		if err := os.MkdirAll(filepath.Join(dir, "conf.d"), 0o700); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(c.String(), "/srv/disks", dir)
		more := ""
		if withArchive {
			more = strings.ReplaceAll(archive(c.numbered), "/srv/disks", dir)
		}
		for _, disk := range disks {
			if err := os.WriteFile(filepath.Join(dir, disk+".img"), make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "targets.conf")
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, archiveConf), []byte(more), 0o600)); err != nil {
			t.Fatal(err)
		}
		conf, err := config.LoadNumbered(file, known)
		if err != nil {
			t.Fatal(err)
		}
		clear(known)
		for _, target := range conf.Targets {
			for _, lun := range target.LUNs {
				known.Set(target.Name, target.TID, lun.Path, lun.Number)
			}
		}
		yaml, err := conf.YAML(false)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(numbersIn(string(yaml), printedNumbers), "\n")
	}
	known := make(config.Numbers)
	first := load(configuration{}, false, known)
	if want := dbTarget + " 2 is " + dir + "/db.img"; !strings.Contains(first, want) || !strings.Contains(first, mailTarget+" is 2") {
		t.Errorf("%q is not in\n%s", want, first)
	}
	grown := load(configuration{cold: true}, true, known)
	for line := range strings.Lines(first) {
		if !strings.Contains(grown, strings.TrimSpace(line)) {
			t.Errorf("%q is not kept:\n%s", line, grown)
		}
	}
	if numbered := load(configuration{cold: true, numbered: true}, true, make(config.Numbers)); numbered != grown {
		t.Errorf("the numbers given were\n%s\nand those written down are\n%s", grown, numbered)
	}
	if anew := load(configuration{cold: true}, true, make(config.Numbers)); anew == grown {
		t.Error("without the numbers that were given, everything has them too: the controls can't find anything")
	}
}

func TestNumbersShown(t *testing.T) {
	const shown = `Target 2: iqn.2015-02.com.stu31:mail
    System information:
        Driver: iscsi
        LUN: 0
            Backing store path: None
        LUN: 1
            Backing store path: /srv/disks/mail-data.img
`
	want := []string{"iqn.2015-02.com.stu31:mail 1 is /srv/disks/mail-data.img", "iqn.2015-02.com.stu31:mail is 2"}
	if got := numbersIn(shown, shownNumbers); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestKept(t *testing.T) {
	before := identities{"iqn.a:b-lun-1: contents db", "iqn.a:b-lun-1: scsi_id 36001"}
	for name, tc := range map[string]struct {
		now  identities
		kept bool
	}{
		"the same":             {before, true},
		"another disk more":    {append(slices.Clone(before), "iqn.a:b-lun-2: scsi_id 36002"), true},
		"another WWID":         {identities{before[0], "iqn.a:b-lun-1: scsi_id 36002"}, false},
		"another disk instead": {identities{"iqn.a:b-lun-1: contents mail", before[1]}, false},
		"gone":                 {nil, false},
	} {
		if err := before.kept(tc.now); tc.kept != (err == nil) || (err != nil && !errors.Is(err, errChanged)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (identities{}).kept(before); err == nil {
		t.Error("without anything to compare, it is the same")
	}
	if err := (identities{"a-lun-1: scsi_id 36001", "a-lun-2: scsi_id 36001"}).are(2); err == nil {
		t.Error("two disks have one identity")
	}
}

func TestDesignators(t *testing.T) {
	// tgt's, and gotgtd's before that of the target port.
	for page, want := range map[string]string{
		"008300480201002464622d766f6c2d303030330000000000000000000000000000000000000000000000000001030008300000010000000201030010600000000000000000000db000000003": `of type 1: "db-vol-0003", of type 3: 3000000100000002, of type 3: 600000000000000000000db000000003`,
		"0083000c020100004151940004000000015194000400000001": "",
		"0083001c01030008300000010000000251940004000000 01":  "",
		"00830014010300083000000100000002519400040000abcd":   "of type 3: 3000000100000002",
	} {
		list, err := designators(page)
		if got := strings.Join(list, ", "); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", page, got, err)
		}
	}
}
