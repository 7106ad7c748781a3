// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// TestIndexHasEveryDocument compares the index of docs with what is there, in both directions.
func TestIndexHasEveryDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"openapi.yaml"}
	for _, f := range files {
		if name := filepath.Base(f); name != "README.md" {
			want = append(want, name)
		}
	}
	var got []string
	for _, m := range regexp.MustCompile(`\[([^]]+)\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
		file, _, _ := strings.Cut(m[2], "#")
		if strings.HasSuffix(m[1], ".md") && m[1] != file {
			t.Errorf("the link %s leads to %s", m[1], m[2])
		}
		got = append(got, file)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("-docs +index:\n%s", diff)
	}
}
