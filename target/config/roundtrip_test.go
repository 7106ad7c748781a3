// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// checkRoundTrip wants a Config that is written as YAML and read again to be
// the same.
func checkRoundTrip(t testing.TB, cfg *Config) {
	t.Helper()
	data, err := cfg.YAML(true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.yaml", data)
	if err != nil {
		t.Fatalf("%v\nin:\n%s", err, data)
	}
	if diff := cmp.Diff(cfg, again, sameConfig); diff != "" {
		t.Errorf("-before +after:\n%s\nin:\n%s", diff, data)
	}
}

func TestRoundTripYAML(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host-b.secret"), "secret-of-host-b")
	checkRoundTrip(t, mustParse(t, filepath.Join(dir, "a.yaml"), everything))
	checkRoundTrip(t, mustParse(t, "a.yaml", ""))
	checkRoundTrip(t, mustParse(t, "a.yaml", "portal-groups:\n  - {tag: 1, portals: []}\n")) // tgtadm has deleted the last one
}

// Every directive that is honoured survives the change of format.
func TestRoundTripTGT(t *testing.T) {
	name := filepath.Join(t.TempDir(), "targets.conf")
	for directive, tests := range directiveTests {
		for _, test := range tests {
			if test.is != nil {
				t.Run(directive, func(t *testing.T) { checkRoundTrip(t, mustParse(t, name, test.text)) })
			}
		}
	}
}

// Texts that YAML would take for something else.
func TestRoundTripOddTexts(t *testing.T) {
	for _, s := range []string{
		"0001", "1e3", "0x10", "true", "null", "~", "off", "a: b", "- a", "# a", "a #b", "'", `"`, " a ", "[", "{", "&a", "*a", "!a",
		"%", "@", "`", "|", ">", "a\\b", "=", "<<", "2001-01-01", "1:2", ".5", "-", "?", "...", "---", "_", "0o7", ".inf", "a\nb\t\x01", "é\u2028", "\U0001F600", "a:",
	} {
		cfg := &Config{
			Discovery: Auth{Users: []Account{{User: s, Secret: Secret(s)}}},
			Targets:   []Target{{Name: "eui.0200000000000001", Alias: s, LUNs: []LUN{{Options: storage.Options{Path: "/" + s, Parameters: map[string]string{"x": s, "null": s, "on": s, "e1": s}}, UnitOptions: scsi.UnitOptions{Vendor: s, Serial: s}}}}},
		}
		cfg.SetDefaults()
		checkRoundTrip(t, cfg)
	}
}

func TestYAMLOmitsDefaults(t *testing.T) {
	cfg := mustParse(t, "/etc/tgt/targets.conf", inTarget("backing-store /dev/a"))
	data, err := cfg.YAML(false)
	if err != nil {
		t.Fatal(err)
	}
	want := `targets:
  - name: iqn.2001-04.com.example:a
    tid: 1
    luns:
      - lun: 1
        path: /dev/a
        thin: false
        scsi-id: "IET     00010001"
        serial: beaf11
        naa: "60000000000000000e00000000010001"
        tgt-identification: true
        physical-block-exponent: 3
        rotation-rate: 0
`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

const gotgtJSON = `{
	"storages": [
		{"deviceID": 1000, "path": "file:disk.img", "online": true, "blockShift": 12,},
		{"deviceID": 1001, "path": "RemBs:vol/1", "thinProvisioning": true},
	],
	"iscsiportals": [{"id": 0, "portal": "127.0.0.1:3260"}, {"id": 1, "portal": "192.0.2.1:3261"}],
	"iscsitargets": {
		"iqn.2016-09.com.gotgt.gostor:b": {"tpgts": {"1": [0, 1]}, "luns": {"1": 1000, "0": 1001}},
		"iqn.2016-09.com.gotgt.gostor:a": {"tpgts": {"1": [0, 1], "2": [1]}, "luns": {}}
	},
	"unknown": 1
}`

func TestGotgt(t *testing.T) {
	cfg := mustParse(t, "/var/lib/gotgt/config.json", gotgtJSON)
	if len(cfg.Targets) != 2 || len(cfg.Targets[0].LUNs) != 0 || len(cfg.Targets[1].LUNs) != 2 {
		t.Fatalf("%+v", cfg)
	}
	groups := []PortalGroup{
		{1, []Portal{{Address: "127.0.0.1:3260"}, {Address: "192.0.2.1:3261"}}},
		{2, []Portal{{Address: "192.0.2.1:3261"}}},
	}
	if diff := cmp.Diff(groups, cfg.PortalGroups); diff != "" {
		t.Errorf("portal groups: %s", diff)
	}
	remote, file := cfg.Targets[1].LUNs[0], cfg.Targets[1].LUNs[1]
	if remote.Number != 0 || remote.Backend != "gotgt:RemBs" || remote.Path != "vol/1" || !remote.Offline || !*remote.Thin {
		t.Errorf("%+v", remote)
	}
	if file.Number != 1 || file.Backend != "file" || file.Path != "/var/lib/gotgt/disk.img" || file.Offline || file.BlockSize != 4096 ||
		file.Vendor != "GOSTOR" || file.Serial != "gotgt-1000" || file.NAA != "30000000000003e8" {
		t.Errorf("%+v", file)
	}
	if pos := cfg.Where("targets[1].luns[1].path"); pos.Line != 3 {
		t.Errorf("the path is at %v", pos)
	}
	checkRoundTrip(t, cfg)
	if len(cfg.notes) != 1 || cfg.notes[0].Key != "unknown" {
		t.Errorf("warnings: %v", cfg.notes)
	}
}

func TestGotgtErrors(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	write(t, name, `{
 "storages": [
  {"deviceID": 1, "path": "disk.img"},
  {"deviceID": 1, "path": "file:none.img", "blockShift": 40}
 ],
 "iscsiportals": [{"portal": "nowhere"}],
 "iscsitargets": {
  "disk": {"tpgts": {"0": [0], "1": [0, 7]}, "luns": {"x": 1, "1": 2, "2": 1}},
  "iqn.2016-09.com.gotgt.gostor:b": {"tpgts": {"1": [0]}}
 }
}`)
	_, err := Load(name)
	checkLines(t, lines(t, err, name), []string{
		"3:27: storages[0].path: \"disk.img\" has no backing store's name",
		"4:16: storages[1].deviceID: device 1 is defined already",
		"6:30: iscsiportals[0].portal: \"nowhere\" is not an IP address",
		"8:11: iscsitargets.disk: \"disk\" is not an iSCSI name",
		"8:27: iscsitargets.disk.tpgts.0: is not a number from 1 to 65535",
		"8:41: iscsitargets.disk.tpgts.1[1]: there is no portal 7 in iscsiportals",
		"8:60: iscsitargets.disk.luns.x: \"x\" is not a number from 0 to 16383",
		"8:68: iscsitargets.disk.luns.1: there is no device 2 in storages",
		"9:53: iscsitargets.iqn.2016-09.com.gotgt.gostor:b.tpgts.1: portal group 1 has other portals",
	})
}

// Every example in the documentation is right, but for the disks.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../../docs/examples/*.*")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%d examples, %v", len(paths), err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cfg := mustParse(t, path, string(data))
		checkRoundTrip(t, cfg)
		for _, e := range cfg.validate(validation{}) {
			if !strings.Contains(e.Error(), "no such file or directory") && !strings.Contains(e.Error(), "is missing, and only a file is made") {
				t.Error(e)
			}
		}
	}
}

// The reference in docs/configuration.md is a configuration by itself, and
// names every key.
func TestReference(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml reference\n")
	reference, _, found := strings.Cut(rest, "```\n")
	if !found {
		t.Fatal("there is no reference")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host-b.secret"), strings.Repeat("0123456789abcdef", 16)[:255])
	write(t, filepath.Join(dir, "archive.img"), strings.Repeat("0123456789abcdef", 32))
	name := filepath.Join(dir, "gotgtd.yaml")
	write(t, name, reference)
	cfg, err := Load(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("%v", cfg.Warnings)
	}
	checkRoundTrip(t, cfg)
	for key := range keysOf(fileConfig{}) {
		if !strings.Contains(reference, key+":") {
			t.Errorf("%s is not in the reference", key)
		}
		if !strings.Contains(string(doc), "`"+key+"`") {
			t.Errorf("%s is not in the text", key)
		}
	}
	for _, directive := range strings.Fields(manDirectives + " " + adminDirectives + " " + adminParameters) {
		if !strings.Contains(string(doc), "`"+directive+"`") {
			t.Errorf("the directive %s is not in the text", directive)
		}
	}
}
