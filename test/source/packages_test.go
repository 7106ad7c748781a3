// SPDX-License-Identifier: Apache-2.0

// Package source tests what has to be true of all packages' sources.
package source

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gotgtd/gotgtd/"

// goPackage is what go list tells of a package.
type goPackage struct {
	Dir, ImportPath, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

// packages returns all of the module.
func packages(t *testing.T) (list []goPackage) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=Dir,ImportPath,Name,GoFiles,TestGoFiles,XTestGoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return list
		case err != nil:
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// files parses files of a package.
func (p *goPackage) files(t *testing.T, mode parser.Mode, names ...string) (list []*ast.File) {
	t.Helper()
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, mode)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

// beginning is how a package's comment begins: "Package NAME", of a program "Command NAME"
// or its name as the first word of a sentence.
func beginning(p *goPackage) *regexp.Regexp {
	if p.Name == "main" {
		return regexp.MustCompile("^(?i:(Command )?" + regexp.QuoteMeta(filepath.Base(p.Dir)) + ") ")
	}
	return regexp.MustCompile("^Package " + p.Name + " ")
}

// Every package says in a comment what it is.
// In one of tests alone, which go doc does not show, it stands in a test.
func TestPackageComments(t *testing.T) {
	all := packages(t)
	if len(all) < 40 {
		t.Fatalf("go list knows %d packages", len(all))
	}
	for _, p := range all {
		names := p.GoFiles
		if len(names) == 0 {
			names = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var doc string
		for _, f := range p.files(t, parser.PackageClauseOnly|parser.ParseComments, names...) {
			doc += f.Doc.Text()
		}
		if start := beginning(&p); !start.MatchString(doc) {
			t.Errorf("%s: its comment does not begin as %v: %q", p.ImportPath, start, doc)
		}
	}
}

// The packages that programs embed have compiled examples, with output where there is any.
func TestExamples(t *testing.T) {
	least := map[string]int{"target": 3, "target/scsi": 1, "target/storage": 2, "target/generation": 1, "supervisor": 1}
	for _, p := range packages(t) {
		want := least[strings.TrimPrefix(p.ImportPath, module)]
		if want == 0 {
			continue
		}
		n := 0
		for _, f := range p.files(t, parser.ParseComments, p.XTestGoFiles...) {
			for _, c := range f.Comments {
				if strings.HasPrefix(c.Text(), "Output:") {
					n++
				}
			}
		}
		if n < want {
			t.Errorf("%s has %d examples with output, at least %d are wanted", p.ImportPath, n, want)
		}
		delete(least, strings.TrimPrefix(p.ImportPath, module))
	}
	for name := range least {
		t.Errorf("there is no package %s", name)
	}
}
