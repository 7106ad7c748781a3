// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// checkParse wants that parsing never panics, that every error has a place,
// and that what is accepted can be validated and written.
func checkParse(t *testing.T, name, text string) {
	cfg, err := Parse(name, []byte(text))
	if err != nil {
		var list Errors
		if !errors.As(err, &list) || len(list) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		for _, e := range list {
			if e.Pos.File == "" || e.Pos.Line < 1 || e.Pos.Column < 1 {
				t.Errorf("%v has no place", e)
			}
		}
		return
	}
	if cfg.Validate() != nil {
		return
	}
	if utf8.ValidString(text) { // or else YAML can't say the same
		checkRoundTrip(t, cfg)
	}
}

func FuzzYAML(f *testing.F) {
	f.Add(everything)
	f.Add("targets:\n  - name: iqn.2015-02.com.stu31:t1\n    luns:\n      - {lun: 1, backend: ram, size: 1GiB}\n")
	f.Add("limits: {memory: 1TiB, login-timeout: 1h}\nportal-groups:\n- tag: 1\n  portals: [{address: '::1'}]\n")
	f.Fuzz(func(t *testing.T, text string) { checkParse(t, "fuzz.yaml", text) })
}

func FuzzTGT(f *testing.F) {
	for _, tests := range directiveTests {
		for _, test := range tests {
			f.Add(test.text)
		}
	}
	f.Add("/* a */ default-driver iscsi\n<target \"iqn.2001-04.com.example:a\">\nincominguser = a \\\n b\n<backing-store \"x y\"/>\n</target>\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "include") {
			return // what the host has to include is no input of this test
		}
		checkParse(t, "fuzz.conf", text)
	})
}

func FuzzGotgt(f *testing.F) {
	f.Add(gotgtJSON)
	f.Fuzz(func(t *testing.T, text string) { checkParse(t, "fuzz.json", text) })
}
