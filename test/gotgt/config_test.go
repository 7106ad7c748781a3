// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/test/peer"
)

// serve has gotgtd serve a configuration until stop is called.
func serve(t *testing.T, config, portal string) (stop func()) {
	t.Helper()
	peer.Need(t, "iscsi-ls")
	p, err := peer.Spawn(programs.gotgtd.Path(t), "serve", "--config", config, "--control", filepath.Join(t.TempDir(), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = peer.Until(ctx, func() error {
		_, err := peer.Run(ctx, "iscsi-ls", "iscsi://"+portal)
		return err
	})
	if err != nil {
		p.Kill()
		t.Fatalf("%v\n%s", err, p.Log())
	}
	return func() {
		if err := p.Stop(); err != nil {
			t.Errorf("%v\n%s", err, p.Log())
		}
	}
}

// view is what an initiator sees: targets with their portals, logical units and
// sizes, and what each logical unit says that it is.
type view struct {
	Targets string
	Units   map[string]string
}

var (
	identity = regexp.MustCompile(`(?m)^(Peripheral Device Type|Vendor|Product|Revision):.*$`)
	listed   = regexp.MustCompile(`(?m)^(Target:\S+ Portal:\S+|Lun:.*Size.*)$`)
	// gotgt pads it with blanks.
	serial = regexp.MustCompile(`Unit Serial Number:\[[^\]\s]+`)
)

// look logs in to every logical unit.
func look(t *testing.T, portal string, units []string) view {
	t.Helper()
	v := view{Units: map[string]string{}}
	list := listed.FindAllString(must(t, "iscsi-ls", "-s", "iscsi://"+portal), -1)
	slices.Sort(list)
	v.Targets = strings.Join(list, "\n")
	for _, u := range units {
		url := "iscsi://" + portal + "/" + u
		texts := identity.FindAllString(must(t, "iscsi-inq", url), -1)
		texts = append(texts, serial.FindString(must(t, "iscsi-inq", "-e", "1", "-c", "128", url)))
		texts = append(texts, designator(must(t, "iscsi-inq", "-e", "1", "-c", "131", url)))
		texts = append(texts, must(t, "iscsi-readcapacity16", url))
		v.Units[u] = strings.Join(texts, "\n")
	}
	return v
}

// designator returns the NAA designator of a device identification page.
func designator(page string) string {
	for part := range strings.SplitSeq(page, "DEVICE DESIGNATOR") {
		if strings.Contains(part, "NAA") {
			for line := range strings.Lines(part) {
				if strings.HasPrefix(line, "Designator:") {
					return line
				}
			}
		}
	}
	return "no NAA designator in:\n" + page
}

// TestSameToInitiators has gotgt and gotgtd serve one and the same file, one
// after the other.
func TestSameToInitiators(t *testing.T) {
	t.Parallel()
	// Device numbers without a byte that is 0, where iscsi-inq ends an identifier.
	const first, second = "iqn.2016-09.com.gotgt.gostor:02:a", "iqn.2016-09.com.gotgt.gostor:02:b"
	dir, portal := t.TempDir(), newPortal(t)
	newDisk(t, filepath.Join(dir, "a.img"), 64<<20)
	newDisk(t, filepath.Join(dir, "b.img"), 100<<20)
	newDisk(t, filepath.Join(dir, "c.img"), 3<<20)
	config := filepath.Join(dir, "config.json")
	write(t, config, fmt.Sprintf(`{
  "storages": [
    {"deviceID": 72340172838076673, "path": "file:%[1]s/a.img", "online": true, "thinProvisioning": false, "blockShift": 9},
    {"deviceID": 144964032628459529, "path": "file:%[1]s/b.img", "online": true},
    {"deviceID": 72057594037927935, "path": "file:%[1]s/c.img", "online": true, "blockShift": 9}
  ],
  "iscsiportals": [{"id": 0, "portal": %[2]q}],
  "iscsitargets": {
    %[3]q: {"tpgts": {"1": [0]}, "luns": {"0": 72340172838076673, "3": 144964032628459529}},
    %[4]q: {"tpgts": {"1": [0]}, "luns": {"0": 72057594037927935}}
  }
}`, dir, portal, first, second))
	units := []string{first + "/0", first + "/3", second + "/0"}

	g, err := peer.StartGotgt(t.Context(), programs.gotgt.Path(t), config, portal)
	if err != nil {
		t.Fatal(err)
	}
	theirs := look(t, portal, units)
	g.Kill()
	stop := serve(t, config, portal)
	defer stop()
	ours := look(t, portal, units)
	if d := cmp.Diff(theirs, ours); d != "" {
		t.Errorf("what an initiator sees of gotgt, and of gotgtd (-gotgt +gotgtd):\n%s", d)
	}
	if n := strings.Count(theirs.Targets, "\n") + 1; n != 5 || !strings.Contains(theirs.Units[second+"/0"], "gotgt-7205") {
		t.Errorf("2 targets and 3 logical units are expected:\n%+v", theirs)
	}
}

// TestExampleConfiguration serves the example that comes with gotgt, at another
// port and from another path, and then the YAML that it is as.
func TestExampleConfiguration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(moduleDir(t), "examples", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir, portal := t.TempDir(), newPortal(t)
	disk, config := filepath.Join(dir, "disk.img"), filepath.Join(dir, "config.json")
	newDisk(t, disk, 16<<20)
	write(t, config, strings.NewReplacer("/var/tmp/disk.img", disk, "127.0.0.1:3260", portal).Replace(string(text)))
	yaml := must(t, programs.gotgtd.Path(t), "check", "--config", config, "--print-yaml")
	for _, want := range []string{"path: " + disk, portal, "example-tgt-0", "vendor: GOSTOR", "serial: gotgt-1000"} {
		if !strings.Contains(yaml, want) {
			t.Errorf("the YAML lacks %q:\n%s", want, yaml)
		}
	}
	native := filepath.Join(dir, "gotgtd.yaml")
	write(t, native, yaml)
	var views []view
	for _, c := range []string{config, native} {
		stop := serve(t, c, portal)
		views = append(views, look(t, portal, []string{"iqn.2016-09.com.gotgt.gostor:02:example-tgt-0/0"}))
		stop()
	}
	if d := cmp.Diff(views[0], views[1]); d != "" {
		t.Errorf("JSON and YAML (-JSON +YAML):\n%s", d)
	}
	if !strings.Contains(views[0].Targets, "Size:15M") {
		t.Errorf("the disk of 16 MiB is missing:\n%s", views[0].Targets)
	}
}
