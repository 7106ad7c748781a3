// SPDX-License-Identifier: Apache-2.0

// Package gotgt tests what users of gotgt come with: its configuration, next to
// gotgt itself, and programs that embed it.
package gotgt

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/test/peer"
)

// programs are gotgtd, the program that embeds the target driver, and gotgt.
var programs struct{ gotgtd, example, gotgt string }

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(peer.Main(m, build))
}

func build(dir string) error {
	g, ctx := errgroup.WithContext(context.Background())
	for path, source := range map[*string]string{&programs.gotgtd: "cmd/gotgtd", &programs.example: "target/gotgt/example"} {
		*path = filepath.Join(dir, filepath.Base(source))
		g.Go(func() error {
			_, err := peer.Run(ctx, "go", "build", "-o", *path, "../../"+source)
			return err
		})
	}
	peerDir := filepath.Join(dir, "peer")
	g.Go(func() (err error) {
		if err = os.Mkdir(peerDir, 0o700); err == nil {
			programs.gotgt, err = peer.BuildGotgt(ctx, peerDir)
		}
		return err
	})
	return g.Wait()
}

// must runs a program that has to succeed and returns what it printed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
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
