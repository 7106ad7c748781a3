// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

const (
	theirDriver = `"github.com/gostor/gotgt/pkg/port/iscsit"`
	ourDriver   = `"github.com/gotgtd/gotgtd/target/gotgt"`
)

// overlay lets the go command find files in a folder of this module where there
// are none, and returns its option for that.
func overlay(t *testing.T, folder string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	replace := make(map[string]string)
	for name, text := range files {
		path := filepath.Join(dir, name)
		write(t, path, text)
		replace[filepath.Join(root, folder, name)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	write(t, path, string(list))
	return "-overlay=" + path
}

// TestMock builds gotgt's own tests of the interfaces with this driver's import
// in place of gotgt's, and runs them, at another port.
func TestMock(t *testing.T) {
	t.Parallel()
	files := make(map[string]string)
	_, port, err := net.SplitHostPort(newPortal(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"remote.go", "remote_test.go"} {
		text, err := os.ReadFile(filepath.Join(moduleDir(t), "mock", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = strings.NewReplacer(theirDriver, "iscsit "+ourDriver, "3260", port).Replace(string(text))
	}
	if !strings.Contains(files["remote.go"], ourDriver) {
		t.Fatalf("gotgt's mock imports its driver in another way:\n%s", files["remote.go"])
	}
	program := filepath.Join(t.TempDir(), "mock.test")
	peer.Need(t, "gcc") // for -race
	must(t, "go", "test", "-c", "-race", "-vet=off", "-o", program, overlay(t, "test/gotgt/mock", files), "../../test/gotgt/mock")
	out := must(t, program, "-test.v")
	if strings.Count(out, "--- PASS: TestStartStop/") != 2 {
		t.Errorf("not all of its tests ran:\n%s", out)
	}
}

// TestBothDrivers imports gotgt's driver and this one into one program.
func TestBothDrivers(t *testing.T) {
	t.Parallel()
	option := overlay(t, "test/gotgt/both", map[string]string{
		"main.go": "package main\n\nimport (\n\t_ " + theirDriver + "\n\t_ " + ourDriver + "\n)\n\nfunc main() {}\n",
	})
	out, err := peer.Run(t.Context(), "go", "run", option, "../../test/gotgt/both")
	if err == nil || !strings.Contains(out, "panic: target driver \"iscsi\" is registered already: import either") {
		t.Errorf("%v\n%s", err, out)
	}
}
