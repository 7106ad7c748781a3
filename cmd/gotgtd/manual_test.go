// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commonOptions are described once, for all commands that have them.
var commonOptions = map[string]bool{"control": true, "json": true, "dry-run": true, "force": true, "help": true}

// TestManualIsComplete compares the commands and their flags with the entries of the
// manual page, in both directions.
func TestManualIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/man/gotgtd.8")
	if err != nil {
		t.Fatal(err)
	}
	page := regexp.MustCompile(`\\f[BIR]`).ReplaceAllString(strings.ReplaceAll(string(text), `\-`, "-"), "")
	_, rest, found := strings.Cut(page, ".SH COMMANDS\n")
	commands, rest, foundToo := strings.Cut(rest, ".SH COMMON OPTIONS\n")
	common, _, _ := strings.Cut(rest, ".SH ")
	if !found || !foundToo {
		t.Fatal("the page has no commands or no common options")
	}
	c := root()
	c.InitDefaultCompletionCmd()
	want := map[string][]string{}
	flagsByCommand(c, want)
	delete(want, "sessions") // stands with session list
	if diff := cmp.Diff(want, entries(t, commands, want)); diff != "" {
		t.Errorf("-program +manual page:\n%s", diff)
	}
	for name := range commonOptions {
		if name != "help" && !strings.Contains(common, "\n.B --"+name) {
			t.Errorf("--%s is not among the common options", name)
		}
	}
}

// flagsByCommand collects the flags of each command that does something, without
// the common ones, in order.
func flagsByCommand(c *cobra.Command, into map[string][]string) {
	name := strings.TrimPrefix(c.CommandPath(), "gotgtd ")
	if name == "completion" {
		into[name] = []string{"no-descriptions"} // of each shell's command
		return
	}
	for _, sub := range c.Commands() {
		flagsByCommand(sub, into)
	}
	if c.HasSubCommands() {
		return
	}
	list := []string{}
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !commonOptions[f.Name] || name == "upgrade" && f.Name != "json" && f.Name != "help" {
			list = append(list, f.Name)
		}
	})
	slices.Sort(list)
	into[name] = list
}

// entries reads the commands of the page and the options below each.
func entries(t *testing.T, text string, known map[string][]string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	command := ""
	for line := range strings.Lines(text) {
		entry, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), ".B ")
		if !ok {
			continue
		}
		if option, ok := strings.CutPrefix(entry, "--"); ok {
			option = regexp.MustCompile(`^[a-z-]+`).FindString(option)
			found[command] = append(found[command], option)
			slices.Sort(found[command])
			continue
		}
		command = entry
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if entry == name || strings.HasPrefix(entry, name+" ") {
				command = name
			}
		}
		if _, twice := found[command]; twice {
			t.Errorf("%s has two entries", command)
		}
		found[command] = []string{}
	}
	return found
}
