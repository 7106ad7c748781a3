// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestContributingNamesWhatIsThere looks for the files and folders that CONTRIBUTING.md names.
func TestContributingNamesWhatIsThere(t *testing.T) {
	const root = "../../../"
	text, err := os.ReadFile("../../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:bench|cmd|docs|internal|supervisor|target|test)(?:/[a-z0-9_./]+)?)`|\\b(docs/[a-z.0-9/]*[a-z0-9])").FindAllStringSubmatch(string(text), -1)
	if len(names) < 30 {
		t.Fatalf("only %d names are found: %q", len(names), names)
	}
	for _, m := range names {
		if _, err := os.Stat(filepath.Join(root, m[1]+m[2])); err != nil {
			t.Errorf("CONTRIBUTING.md names %s: %v", m[1]+m[2], err)
		}
	}
}
