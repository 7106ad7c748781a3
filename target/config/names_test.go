// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

// TestAnyName serves names that tgt serves: from a targets.conf with a warning,
// from YAML if it is asked for, and says so if it is not.
func TestAnyName(t *testing.T) {
	for _, name := range []string{"iqn.2016-01-com.example.tg1", "example.org:win11.iso"} {
		conf, errs := parse("t.conf", []byte("<target "+name+">\n</target>\n"), nil)
		errs = append(errs, conf.validate(validation{})...)
		if len(errs) > 0 || len(conf.Warnings) == 0 || !strings.Contains(conf.Warnings.Error(), name) {
			t.Errorf("targets.conf with %s: errors %v, warnings %v", name, errs, conf.Warnings)
		}
		text := "targets:\n  - name: \"" + name + "\"\n"
		strict, _ := parse("t.yaml", []byte(text), nil)
		if errs := strict.validate(validation{}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "any-name: true") {
			t.Errorf("YAML with %s: %v", name, errs)
		}
		lax, _ := parse("t.yaml", []byte(text+"    any-name: true\n"), nil)
		if errs := lax.validate(validation{}); len(errs) > 0 {
			t.Errorf("YAML with %s and any-name: %v", name, errs)
		}
		again, err := conf.YAML(false)
		if err != nil || !strings.Contains(string(again), "any-name: true") {
			t.Errorf("written as YAML: %v\n%s", err, again)
		}
	}
	for _, name := range []string{"a b", "a\tb", "a\x00b", "a\xffb", "a\u2003b", strings.Repeat("x", iscsiname.MaxLen+1)} {
		if checkAnyName(name) == nil {
			t.Errorf("%q is let pass", name)
		}
	}
}
