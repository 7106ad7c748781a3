// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

// TestHandoverCreates hands over to a server that has one more logical unit, whose file is to
// be made: it is, and it is locked as the others are.
func TestHandoverCreates(t *testing.T) {
	dir := t.TempDir()
	lun := func(n uint16, name string) config.LUN {
		return config.LUN{Number: n, Options: storage.Options{Path: filepath.Join(dir, name), Size: 1 << 20, Create: true}}
	}
	server := func(successor bool, luns ...config.LUN) *Server {
		s, _ := newServer(t, Options{Successor: successor, Config: &config.Config{
			Targets: []config.Target{{Name: "iqn.2026-11.test:files", LUNs: luns}},
		}})
		return s
	}
	old := server(false, lun(1, "first"))
	handOver(t, old, server(true, lun(1, "first"), lun(2, "second")))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
		store, err := storage.OpenFile(storage.Options{Path: path})
		if !errors.Is(err, storage.ErrLocked) {
			t.Errorf("%s can be opened by another: %v", name, err)
		}
		if err == nil {
			store.Close()
		}
	}
}

// TestErrorsWithoutAFile wants no empty place in a message about what stands in no file.
func TestErrorsWithoutAFile(t *testing.T) {
	conf := &config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:files", LUNs: []config.LUN{{Number: 1, Backend: "tape"}}}}}
	conf.SetDefaults()
	_, err := New(Options{Config: conf})
	if want := `targets[0].luns[0].backend: "tape" is none of ` + strings.Join(storage.Drivers(), ", "); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
