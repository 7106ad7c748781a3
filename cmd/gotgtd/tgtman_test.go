// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestTgtManuals finds every option, mode and operation in the manual pages of tgt's tools, and no
// option that there is not.
func TestTgtManuals(t *testing.T) {
	page := func(name string) string {
		text, err := os.ReadFile("../../docs/man/tgt/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), `\-`, "-")
	}
	has := func(page, name string, wanted ...string) {
		for _, w := range wanted {
			if !strings.Contains(page, w) {
				t.Errorf("%s lacks %q", name, w)
			}
		}
	}
	// Both pages speak of tgtadm's options, and tgtadm's of those of gotgtd.
	known := map[string]bool{"--help": true, "--version": true}
	new(tgtAdminRun).flags().VisitAll(func(f *pflag.Flag) { known["--"+f.Name] = true })
	for _, o := range tgtadmOptions {
		known["--"+o.name] = true
	}
	for _, name := range []string{"tgtadm.8", "tgt-admin.8"} {
		for _, option := range regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(page(name), -1) {
			if !known[option] {
				t.Errorf("%s has %s, which is no option", name, option)
			}
		}
	}
	tgtadm := page("tgtadm.8")
	for _, o := range tgtadmOptions {
		has(tgtadm, "tgtadm.8", "--"+o.name, "-"+string(o.short))
	}
	for what := range allowed {
		mode, op, _ := strings.Cut(what, " ")
		_, rest, found := strings.Cut(tgtadm, mode+` "`)
		line, _, _ := strings.Cut(rest, "\n")
		if mode == "lld" || mode == "system" {
			_, line, found = strings.Cut(tgtadm, `.BR system "`)
		}
		if !found || !strings.Contains(line, op) {
			t.Errorf("tgtadm.8 lacks %s of %s", op, mode)
		}
	}
	admin := page("tgt-admin.8")
	new(tgtAdminRun).flags().VisitAll(func(f *pflag.Flag) {
		has(admin, "tgt-admin.8", "--"+f.Name)
		if f.Shorthand != "" {
			has(admin, "tgt-admin.8", "-"+f.Shorthand+" ")
		}
	})
}
