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

// entry is a key in a manual, with its default as the manual has it.
type entry struct{ Key, Default string }

// TestManualsHaveEveryKey compares the keys that the reader knows with
// those in the tables of docs/configuration.md, and these with the manual page, defaults included.
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
	var first map[string][]entry
	for _, m := range []struct {
		path         string
		heading, key *regexp.Regexp
	}{
		{"../../docs/configuration.md", regexp.MustCompile("^##+ (.*)$"), regexp.MustCompile("^\\| `([a-z0-9-]+)` \\|(?: ([^|]+?))? \\|")},
		{"../../docs/man/gotgtd.yaml.5", regexp.MustCompile(`^\.SH (.*)$`), regexp.MustCompile(`^\.BR? ([a-z0-9-]+)(?: " \((.*)\)"|$)`)},
	} {
		found := entriesBySection(t, m.path, m.heading, m.key)
		for name, types := range sections {
			var keys []string
			for _, e := range found[name] {
				keys = append(keys, e.Key)
			}
			if diff := cmp.Diff(ownKeys(types), keys); diff != "" {
				t.Errorf("%s, %s: -reader +manual:\n%s", m.path, name, diff)
			}
			if first == nil {
				continue
			}
			if diff := cmp.Diff(first[name], found[name]); diff != "" {
				t.Errorf("%s, %s: -configuration.md +manual page:\n%s", m.path, name, diff)
			}
		}
		if first == nil {
			first = found
		}
	}
}

// entriesBySection reads which keys have an entry, by the heading before it, in the order of the keys.
// Those that stand in two sections have an entry in each; none has two in one.
func entriesBySection(t *testing.T, path string, heading, key *regexp.Regexp) map[string][]entry {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, section := map[string][]entry{}, ""
	plain := strings.NewReplacer("`", "", `\fI`, "", `\fR`, "")
	for line := range strings.Lines(strings.ReplaceAll(string(text), `\-`, "-")) {
		line = strings.TrimSuffix(line, "\n")
		if h := heading.FindStringSubmatch(line); h != nil {
			section = strings.ToLower(h[1])
		} else if k := key.FindStringSubmatch(line); k != nil {
			found[section] = append(found[section], entry{k[1], plain.Replace(k[2])})
		}
	}
	for _, list := range found {
		slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.Key, b.Key) })
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
