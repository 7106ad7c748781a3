// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// sections are the sections of both manuals, and the types of the file whose keys
// stand there.
var sections = map[string][]any{
	"top level":      {fileConfig{}, fileIncluded{}},
	"portal groups":  {filePortalGroup{}, filePortal{}},
	"limits":         {Limits{}},
	"metrics":        {Metrics{}},
	"targets":        {fileTarget{}},
	"access":         {fileAccess{}},
	"authentication": {fileAuth{}, fileAccount{}, fileShared{}},
	"parameters":     {Parameters{}},
	"logical units":  {fileLUN{}, scsi.ModePage{}},
}

// TestManualsHaveEveryKey compares the keys that the reader knows with
// those in the tables of docs/configuration.md, and in the manual page.
func TestManualsHaveEveryKey(t *testing.T) {
	covered := map[reflect.Type]bool{}
	for _, types := range sections {
		for _, v := range types {
			covered[reflect.TypeOf(v)] = true
		}
	}
	for _, typ := range typesWithin(reflect.TypeOf(fileConfig{})) {
		if !covered[typ] {
			t.Errorf("the keys of %v belong to no section", typ)
		}
	}
	for _, m := range []struct {
		path         string
		heading, key *regexp.Regexp
	}{
		{"../../docs/configuration.md", regexp.MustCompile("^##+ (.*)$"), regexp.MustCompile("^\\| `([a-z0-9-]+)` \\|")},
		{"../../docs/man/gotgtd.yaml.5", regexp.MustCompile(`^\.SH (.*)$`), regexp.MustCompile(`^\.BR? ([a-z0-9-]+)(?: |$)`)},
	} {
		found := keysBySection(t, m.path, m.heading, m.key)
		for name, types := range sections {
			if diff := cmp.Diff(ownKeys(types), found[name]); diff != "" {
				t.Errorf("%s, %s: -reader +manual:\n%s", m.path, name, diff)
			}
		}
	}
}

// keysBySection reads which keys have an entry, by the heading before it. Those that stand in two
// sections have an entry in each; none has two in one.
func keysBySection(t *testing.T, path string, heading, key *regexp.Regexp) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, section := map[string][]string{}, ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), `\-`, "-")) {
		line = strings.TrimSuffix(line, "\n")
		if h := heading.FindStringSubmatch(line); h != nil {
			section = strings.ToLower(h[1])
		} else if k := key.FindStringSubmatch(line); k != nil {
			found[section] = append(found[section], k[1])
		}
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}

// ownKeys are the keys of types, without those of what is within, in order.
func ownKeys(types []any) []string {
	keys := map[string]bool{}
	for _, v := range types {
		typ := reflect.TypeOf(v)
		for f := range fileFields(reflect.New(typ).Elem()) {
			keys[f.key] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// typesWithin are the structs that a value of a type is made of.
func typesWithin(t reflect.Type) []reflect.Type {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return typesWithin(t.Elem())
	case reflect.Struct:
		list := []reflect.Type{t}
		for f := range fileFields(reflect.New(t).Elem()) {
			list = append(list, typesWithin(f.value.Type())...)
		}
		return list
	}
	return nil
}
