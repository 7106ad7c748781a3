// SPDX-License-Identifier: Apache-2.0

package source

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestManualPages has man(1) format every page, with all of groff's warnings. A line that can't be
// broken in 80 columns is one.
func TestManualPages(t *testing.T) {
	peer.Need(t, "man")
	pages := 0
	err := filepath.WalkDir("../../docs/man", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		pages++
		cmd := exec.Command("man", "-l", "--warnings=w", path)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MAN_KEEP_STDERR=1")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v\n%s", path, err, &complaints)
		}
		return nil
	})
	if err != nil || pages < 5 {
		t.Errorf("%d pages: %v", pages, err)
	}
}
