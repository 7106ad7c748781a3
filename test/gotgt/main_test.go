// SPDX-License-Identifier: Apache-2.0

// Package gotgt tests what users of gotgt come with: its configuration, next to
// gotgt itself, and programs that embed it.
package gotgt

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// programs are gotgtd, the program that embeds the target driver, and gotgt.
var programs = struct{ gotgtd, example, gotgt *peer.Program }{
	gotgtd:  peer.GoProgram("gotgtd", "../../cmd/gotgtd"),
	example: peer.GoProgram("example", "../../target/gotgt/example"),
	gotgt:   peer.NewProgram("gotgt", peer.BuildGotgt),
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(peer.Main(m, programs.gotgtd, programs.example, programs.gotgt))
}

// must runs a program that has to succeed and returns what it printed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	peer.Need(t, name)
	out, err := peer.Run(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// moduleDir is where gotgt's source is.
func moduleDir(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(must(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/gostor/gotgt"))
}

// newPortal returns a portal that nothing serves.
func newPortal(t *testing.T) string {
	t.Helper()
	portal, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return portal
}

// newDisk makes a file of so many bytes without contents.
func newDisk(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// write makes a file.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
