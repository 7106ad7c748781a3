// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore/remote" // registers RemBs, which tests name
	"go.uber.org/goleak"

	_ "github.com/gotgtd/gotgtd/target/storage/plugin" // the driver "gotgt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sameConfig compares what the program runs on, not where it was written.
var sameConfig = cmp.Options{
	cmpopts.IgnoreUnexported(Config{}),
	cmpopts.IgnoreFields(Config{}, "Files", "Warnings"),
	cmpopts.IgnoreTypes(Pos{}),
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.Prefix{}),
	cmp.Comparer(func(a, b Secret) bool { return a == b }),
}

// write makes a file for a test, with its directory.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// mustParse parses what has to be right.
func mustParse(t testing.TB, name, text string) *Config {
	t.Helper()
	cfg, err := Parse(name, []byte(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return cfg
}

// lines returns the errors in err, one string each, without the file's name.
func lines(t testing.TB, err error, file string) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var list Errors
	if !errors.As(err, &list) {
		t.Fatalf("%v is not an Errors", err)
	}
	var out []string
	for _, e := range list {
		out = append(out, strings.TrimPrefix(e.Error(), file+":"))
	}
	return out
}

// checkLines wants each line to begin as given. A line of want without a
// counterpart and the other way round are failures.
func checkLines(t testing.TB, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("unexpected: %s", got[i])
		case !strings.HasPrefix(got[i], want[i]):
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}

// keysOf returns every key that a file of this type can have.
func keysOf(v any) map[string]bool {
	keys := map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			for f := range fileFields(reflect.New(t).Elem()) {
				keys[f.key] = true
				walk(f.value.Type())
			}
		}
	}
	walk(reflect.TypeOf(v))
	return keys
}
