// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "4096B": 4096, "1K": 1 << 10, "1k": 1 << 10, "512MiB": 512 << 20, "10G": 10 << 30,
		"1GiB": 1 << 30, "2GB": 2 << 30, "3TiB": 3 << 40, "8191PiB": 8191 << 50,
		"10GB": 10 << 30, "1.5G": 3 << 29, "0.125KiB": 128, "8191.5P": 8191<<50 | 1<<49,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "+1", "-0", "1.5", "1.1G", "1.G", ".5G", "1.0001T", "1.-5G", "1.2.5G", "1 G", "1Gi", "1GGiB", "1iB", "0x10", "9223372036854775808", "8192PiB", "1KM"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

// TestForgivenSpellings loads what editors and administrators write.
func TestForgivenSpellings(t *testing.T) {
	for word, want := range map[string]bool{"yes": true, "on": true, "true": true, "no": false, "off": false} {
		file := filepath.Join(t.TempDir(), "a.yaml")
		text := "\ufefftargets:\n  - name: iqn.2026-11.test:a\n    luns:\n      - {lun: 1, path: a.img, read-only: " + word + "}\n"
		for name, data := range map[string][]byte{file: []byte(text), filepath.Join(filepath.Dir(file), "a.img"): make([]byte, 1<<20)} {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := Load(file)
		if err != nil {
			t.Fatalf("read-only: %s: %v", word, err)
		}
		if got := cfg.Targets[0].LUNs[0].ReadOnly; got != want {
			t.Errorf("read-only: %s is %v", word, got)
		}
	}
}

// TestNearMisses reads the advice in messages.
func TestNearMisses(t *testing.T) {
	for text, want := range map[string]string{
		"tragets: []\n":                                `did you mean "targets"?`,
		"targets:\n\t- name: a\n":                      "indent with spaces",
		"targets:\n  - naem: a\n":                      `did you mean "name"?`,
		"targets:\n  - {luns: [{read-only: 'yes'}]}\n": "must be true or false",

		"targets:\n  - {luns: [{lun: 70000}]}\n":                                  "lun: 70000 is not in the range from 0 to 16383",
		"targets:\n  - {luns: [{lun: 20000}]}\n":                                  "lun: 20000 is not in the range from 0 to 16383",
		"targets:\n  - {luns: [{lun: -1}]}\n":                                     "lun: -1 is not in the range from 0 to 16383",
		"targets:\n  - {portal-groups: [65536]}\n":                                "portal-groups[0]: 65536 is not in the range from 1 to 65535",
		"portal-groups:\n  - {tag: 65536}\n":                                      "tag: 65536 is not in the range from 1 to 65535",
		"portal-groups:\n  - {tag: 0}\n":                                          "tag: 0 is not in the range from 1 to 65535",
		"targets:\n  - {luns: [{mode-pages: [{page: 256, subpage: 256}]}]}\n":     "page: 256 is not in the range from 0 to 62",
		"targets:\n  - {luns: [{mode-pages: [{page: 2, subpage: 256}]}]}\n":       "subpage: 256 is not in the range from 0 to 254",
		"targets:\n  - {luns: [{lowest-aligned-lba: 65536}]}\n":                   "lowest-aligned-lba: 65536 is not in the range from 0 to 16383",
		"targets:\n  - {luns: [{optimal-transfer-length: 5000000000}]}\n":         "is not in the range from 0 to 4294967295",
		"targets:\n  - {luns: [{optimal-transfer-granularity: 65536}]}\n":         "is not in the range from 0 to 65535",
		"targets:\n  - {luns: [{path: /nowhere/a.img}]}\n":                        "(to have the file made, give size and create: true)",
		"targets:\n  - {luns: [{path: /nowhere/a.img, size: 1M}]}\n":              "(to have the file made, give create: true)",
		"targets:\n  - {luns: [{path: /nowhere/a.img, create: true}]}\n":          "size: is missing: create needs to know how large the file is made",
		"portal-groups:\n  - {tag: 1, portals: [{address: ':x'}]}\n":              `":x" is not an IP address`,
		"portal-groups:\n  - {tag: 1, portals: [{address: 'localhost:iscsi'}]}\n": `"localhost:iscsi" is not an IP address`,
	} {
		if _, err := LoadText("a.yaml", []byte(text), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for name, text := range map[string]string{
		"a.yaml": "targets: [{name: 'iqn.2026-11.test:a', luns: [{lun: 1, path: /dev/nowhere}]}]\n",
		"a.conf": "<target iqn.2026-11.test:a>\nbacking-store /nowhere/a.img\n</target>\n",
	} {
		if _, err := LoadText(name, []byte(text), nil, nil); err == nil || !strings.Contains(err.Error(), "no such file") || strings.Contains(err.Error(), "create") {
			t.Errorf("%s, where nothing is made: %v", name, err)
		}
	}
	if got := didYouMean("frobnicate", []string{"name", "path"}); got != "" {
		t.Errorf("frobnicate is near%s", got)
	}
}

func TestFormatSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<62).Draw(t, "n") &^ (1<<rapid.IntRange(0, 60).Draw(t, "zeros") - 1)
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d becomes %q becomes %d, %v", n, FormatSize(n), got, err)
		}
	})
}

func TestSecretStaysSecret(t *testing.T) {
	cfg := &Config{Discovery: Auth{Users: []Account{{User: "u", Secret: "hunter2hunter2"}}}}
	asJSON, err := json.Marshal(cfg.Discovery)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := cfg.YAML(false)
	if err != nil {
		t.Fatal(err)
	}
	secret := cfg.Discovery.Users[0].Secret
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d", cfg, cfg, cfg.Discovery, secret, secret, secret, secret) + string(asJSON) + string(asYAML)
	for _, s := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(all, s) {
			t.Errorf("%q shows in %s", s, all)
		}
	}
	if string(secret) != "hunter2hunter2" {
		t.Error("the secret can't be revealed")
	}
	if data, err := cfg.YAML(true); err != nil || !strings.Contains(string(data), "hunter2hunter2") {
		t.Errorf("YAML with secrets: %s, %v", data, err)
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	for _, test := range []struct {
		text   string
		mode   os.FileMode
		secret string
		err    string
	}{
		{"correct horse\n", 0o600, "correct horse", ""},
		{"correct horse", 0o400, "correct horse", ""},
		{"correct horse\n\n", 0o600, "correct horse\n", ""},
		{"x", 0o640, "", "has mode 0640"},
		{"x", 0o604, "", "has mode 0604"},
		{"x", 0o620, "", "has mode 0620"},
		{"\n", 0o600, "", "is empty"},
		{"correct horse\r\n", 0o600, "correct horse", ""},
		{"\xef\xbb\xbfcorrect horse\n", 0o600, "", "begins with a byte order mark"},
		{"\xff\xfec\x00o\x00", 0o600, "", "begins with a byte order mark"},
	} {
		write(t, path, test.text)
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		secret, err := readSecret(path)
		if string(secret) != test.secret || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q with mode %o: %q, %v", test.text, test.mode, string(secret), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readSecret(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := readSecret(path); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
	write(t, path, strings.Repeat("x", 256))
	_, err := Parse(filepath.Join(dir, "a.yaml"), []byte("discovery: {users: [{user: a, secret-file: s}]}"))
	if err != nil {
		t.Error(err)
	}
	cfg := mustParse(t, filepath.Join(dir, "a.yaml"), "discovery: {users: [{user: a, secret-file: s}]}")
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "1:44: discovery.users[0].secret-file: a secret has at most 255 bytes") {
		t.Errorf("a secret too long: %v", err)
	}
}

func TestReadableConfiguration(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gotgtd.yaml")
	write(t, name, "discovery: {users: [{user: a, secret: 0123456789ab}, {user: b, secret: 0123456789ab}]}\ntargets: [{name: eui.0200000000000001}]\n")
	for mode, want := range map[os.FileMode][]string{
		0o600: nil,
		0o644: {" has a secret in it, but mode 0644"},
	} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		checkLines(t, lines(t, cfg.Warnings, name), want)
	}
}

func TestAccess(t *testing.T) {
	var a Access
	for _, s := range []string{"172.16.31.0/24", "10.1.2.3/8", "192.0.2.1", "2001:db8::/64", "::ffff:198.51.100.1"} {
		if err := a.add(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"iqn.2001-04.com.Example:one", "iqn.1993-08.org.debian:*"} {
		if err := a.addInitiator(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, test := range []struct {
		addr, name string
		want       bool
	}{
		{"172.16.31.77", "iqn.x", true},
		{"172.16.32.1", "iqn.x", false},
		{"10.255.0.1", "iqn.x", true}, // a network given by an address in it
		{"::ffff:192.0.2.1", "iqn.x", true},
		{"192.0.2.2", "iqn.x", false},
		{"2001:db8::1", "iqn.x", true},
		{"2001:db8:0:1::1", "iqn.x", false},
		{"198.51.100.1", "iqn.x", true},
		{"203.0.113.1", "IQN.2001-04.com.example:ONE", true}, // the name alone is enough
		{"203.0.113.1", "iqn.2001-04.com.example:one1", false},
		{"203.0.113.1", "iqn.1993-08.org.debian:01:abc", true},
	} {
		if got := a.Allows(netip.MustParseAddr(test.addr), test.name, ""); got != test.want {
			t.Errorf("%s at %s: %v", test.name, test.addr, got)
		}
	}
	if got := a.List()[:3]; !slices.Equal(got, []string{"172.16.31.0/24", "10.1.2.3/8", "192.0.2.1"}) {
		t.Errorf("List: %q", got)
	}
	a.All = true
	if !a.Allows(netip.MustParseAddr("203.0.113.1"), "x", "") || !(Access{}).Allows(netip.Addr{}, "x", "") {
		t.Error("ALL is not for all")
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{
		"iqn.2001-04.com.example", "iqn.2001-04.com.example:", "iqn.2001-04.com.example:storage:disk1.sys1.xyz",
		"iqn.2001-04.com.ex-ample:日本", "iqn.2016-09.com.gotgt.gostor:example_tgt_0",
		"eui.02004567a425678d", "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef",
		"iqn.2001-04.com.example:" + strings.Repeat("a", iscsiname.MaxLen-24),
	} {
		if err := checkName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "iqn", "iqn.", "iqn.2001-4.com.example", "iqn.2001-00.com.example", "iqn.2001-04.", "iqn.2001-04.-a.com",
		"iqn.2001-04.com..example", "iqn.2001-04.com.example:A", "iqn.2001-04.com.example:a/b", "iqn.2001-04.com.example:a\x00",
		"iqn.2001-04.com.example:\xff", "iqn.2001-04.com.example:\u3000", "iqn.2001-04.com.exa_mple:x",
		"eui.02004567a425678", "eui.02004567a425678g", "naa.42004567ba64678d", "naa.62004567ba64678d", "naa.", "nqn.2001-04.com.example",
		"iqn.2001-04.com.example:" + strings.Repeat("a", iscsiname.MaxLen-23),
	} {
		if checkName(s) == nil {
			t.Errorf("%q passes", s)
		}
	}
}

func TestParsePortal(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:3260", "192.0.2.1:0": "192.0.2.1:0", "2001:db8::1": "[2001:db8::1]:3260",
		"[2001:db8::1]": "[2001:db8::1]:3260", "[::]:860": "[::]:860", ":3260": "[::]:3260", "localhost": "127.0.0.1:3260", "localhost:860": "127.0.0.1:860", "fe80::1%eth0": "[fe80::1%eth0]:3260",
	} {
		if got, err := ParsePortal(text); err != nil || got != want {
			t.Errorf("%q becomes %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", ":x", "host.example:3260", "localhost:", "192.0.2.1:65536", "192.0.2.1:", "[192.0.2.1:1", "192.0.2.1:iscsi"} {
		if got, err := ParsePortal(text); err == nil {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	for _, s := range []string{"0.0.0.0:3260", "[::]:3260"} {
		if got, err := ParsePortal(s); err != nil || got != s {
			t.Errorf("%q becomes %q, %v", s, got, err)
		}
	}
}

func TestParseAnnounced(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.5": "203.0.113.5:3260", "203.0.113.5:860": "203.0.113.5:860", "2001:db8::1": "[2001:db8::1]:3260", "[2001:db8::1]": "[2001:db8::1]:3260",
		"[2001:db8::1]:860": "[2001:db8::1]:860", "[::ffff:203.0.113.5]:860": "203.0.113.5:860",
		"SAN": "san:3260", "a-1.example.com:860": "a-1.example.com:860", "127.0.0.1:3999": "127.0.0.1:3999",
	} {
		got, err := ParseAnnounced(text)
		if err != nil || got != want {
			t.Errorf("%q becomes %q, %v", text, got, err)
		}
		if again, err := ParseAnnounced(got); err != nil || again != got {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	}
	for text, want := range map[string]string{
		"0.0.0.0": "every address", "0.0.0.0:3260": "every address", "[::]:3260": "every address", "::": "every address", ":3260": "every address", "*:3260": "every address", "": "not an address",
		"fe80::1%eth0": "zone index", "[fe80::1%eth0]:3260": "zone index", "224.0.0.1": "multicast",
		"203.0.113.5:0": "from 1 to 65535", "203.0.113.5:65536": "from 1 to 65535", "san:iscsi": "from 1 to 65535", "203.0.113.5:": "from 1 to 65535", "san:-1": "from 1 to 65535",
		"203.0.113.500": "not an address", "-a": "not an address", "a_b:3260": "not an address", "a b": "not an address", "203.0.113.5,1": "not an address", "2001:db8::1:": "not an address",
		"2001:db8::1]:3260": "not an address", "a.example.": "not an address",
	} {
		if got, err := ParseAnnounced(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q becomes %q, error %v, want one with %q", text, got, err, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for text, want := range map[string]fileFormat{
		"":                               formatYAML,
		"# nothing":                      formatYAML,
		"targets: []":                    formatYAML,
		"# x\n\n  <target a>":            formatTGT,
		"include /etc/tgt/conf.d/*.conf": formatTGT,
		"default-driver iscsi":           formatTGT,
		"include: x":                     formatYAML,
		"\n{\"storages\": []}":           formatGotgt,
	} {
		if got := format("targets", []byte(text)); got != want {
			t.Errorf("%q is taken for format %d, want %d", text, got, want)
		}
	}
	for name, want := range map[string]fileFormat{"a.yaml": formatYAML, "a.yml": formatYAML, "a.conf": formatTGT, "a.json": formatGotgt} {
		if got := format(name, []byte("{}")); got != want {
			t.Errorf("%s is taken for format %d, want %d", name, got, want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "none.yaml")
	_, err := Load(path)
	checkLines(t, lines(t, err, path), []string{" can't open the configuration: no such file"})
	big := filepath.Join(dir, "big.yaml")
	write(t, big, strings.Repeat("#", maxFileSize+1))
	_, err = Load(big)
	checkLines(t, lines(t, err, big), []string{" is larger than"})
	if _, err = Parse(big, make([]byte, maxFileSize+1)); err == nil {
		t.Error("Parse takes too large a file")
	}
}
