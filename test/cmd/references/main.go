// SPDX-License-Identifier: Apache-2.0

// Command references counts how the files of target/iscsi hang together: how many references
// there are between them and to the packages below, and how many go up in the order of the files
// that docs/design.md has. It is run from the root of the module:
//
//	go run ./test/cmd/references [-v]
//
// A reference is one from a file to another in which at least one function, method, type, constant or
// variable is declared that it uses. A call of an interface's method is none: what counts is the file
// that declares the interface, where its name is used. Fields are not counted. Between packages none
// goes up, for imports have no cycles. A file that the document does not name stands where the fewest
// of its references go up.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const hall = "github.com/gotgtd/gotgtd/target/iscsi"

// A reference is one from a file to another, by their paths below the package.
type reference struct{ from, to string }

func main() {
	verbose := flag.Bool("v", false, "list the references that go up")
	flag.Parse()
	if err := run(os.Stdout, ".", *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run reports the references of the module in a folder.
func run(w io.Writer, dir string, verbose bool) error {
	all, within, up, conn, err := count(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d references between files, %d of them within target/iscsi itself, of which %d go up; conn has %d methods in %d files\n",
		len(all), len(within), len(up), len(conn), len(slices.Compact(slices.Sorted(slices.Values(conn)))))
	if verbose {
		for _, r := range up {
			fmt.Fprintf(w, "%s uses %s\n", r.from, r.to)
		}
	}
	return nil
}

// count returns the references of the module in a folder: all, those within target/iscsi itself,
// of which some go up; and for each method of conn the file that it is in.
func count(dir string) (all, within, up []reference, conn []string, err error) {
	design, err := os.ReadFile(filepath.Join(dir, "docs/design.md"))
	if err != nil {
		return nil, nil, nil, nil, fmt.Errorf("%w: run it from the root of the module", err)
	}
	packages, exports, err := list(dir, hall)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if all, conn, err = references(packages, exports); err != nil {
		return nil, nil, nil, nil, err
	}
	within = slices.DeleteFunc(slices.Clone(all), func(r reference) bool { return strings.Contains(r.from+r.to, "/") })
	return all, within, upward(orderOf(design, within), within), conn, nil
}

// goPackage is what go list tells of a package.
type goPackage struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
}

// list returns the package and those below it, and where all that they import are compiled.
func list(dir, path string) (packages []goPackage, exports map[string]string, err error) {
	c := exec.Command("go", "list", "-export", "-deps", "-json=Dir,ImportPath,Export,GoFiles", path)
	c.Dir, c.Stderr = dir, os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w", err)
	}
	exports = make(map[string]string)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, exports, nil
		case err != nil:
			return nil, nil, err
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath+"/", path+"/") {
			packages = append(packages, p)
		}
	}
}

// references returns those between the files of packages, in order, and for each method of
// the type conn the file that it is in. The last package is the one that the others are below.
func references(packages []goPackage, exports map[string]string) (list []reference, conn []string, err error) {
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	root := packages[len(packages)-1].Dir
	fileOf := func(at token.Pos) string {
		below, err := filepath.Rel(root, fset.Position(at).Filename)
		if err != nil {
			return fset.Position(at).Filename
		}
		return filepath.ToSlash(below)
	}
	found := make(map[reference]bool)
	for _, p := range packages {
		info, err := check(fset, imports, &p)
		if err != nil {
			return nil, nil, err
		}
		for id, o := range info.Uses {
			if r := (reference{fileOf(id.Pos()), fileOf(o.Pos())}); counts(o, packages) && r.from != r.to {
				found[r] = true
			}
		}
		for id, o := range info.Defs {
			if f, ok := o.(*types.Func); ok && receiver(f) == "conn" {
				conn = append(conn, fileOf(id.Pos()))
			}
		}
	}
	for r := range found {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return list, conn, nil
}

// check finds out what the names in a package stand for.
func check(fset *token.FileSet, imports types.Importer, p *goPackage) (*types.Info, error) {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)}
	_, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info)
	return info, err
}

// receiver is the name of a method's type, "" for a function.
func receiver(f *types.Func) string {
	r := f.Signature().Recv()
	if r == nil {
		return ""
	}
	t := r.Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

// counts tells whether the use of an object is a reference to its file.
func counts(o types.Object, packages []goPackage) bool {
	if o.Pkg() == nil || !slices.ContainsFunc(packages, func(p goPackage) bool { return p.ImportPath == o.Pkg().Path() }) {
		return false
	}
	switch o := o.(type) {
	case *types.TypeName, *types.Const, *types.Var:
		return o.Parent() == o.Pkg().Scope()
	case *types.Func:
		r := o.Signature().Recv()
		return r == nil || !types.IsInterface(r.Type())
	}
	return false
}

// orderBegins is what stands before the list of files in the document.
const orderBegins = "From the top to the bottom:"

var fileName = regexp.MustCompile("`([a-z_]+)`")

// orderOf returns the files that references are between, those that the document names in its order.
func orderOf(design []byte, list []reference) []string {
	_, text, _ := strings.Cut(string(design), orderBegins)
	text, _, _ = strings.Cut(text, "\n\n")
	files := make(map[string]bool)
	for _, r := range list {
		files[r.from], files[r.to] = true, true
	}
	var order []string
	for _, m := range fileName.FindAllStringSubmatch(text, -1) {
		if name := m[1] + ".go"; files[name] {
			order = append(order, name)
			delete(files, name)
		}
	}
	rest := make([]string, 0, len(files))
	for name := range files {
		rest = append(rest, name)
	}
	slices.Sort(rest)
	for _, name := range rest {
		best := order
		for i := range len(order) + 1 {
			tried := slices.Insert(slices.Clone(order), i, name)
			if i == 0 || len(upward(tried, list)) < len(upward(best, list)) {
				best = tried
			}
		}
		order = best
	}
	return order
}

// upward returns the references that go up in an order from the top to the bottom.
func upward(order []string, list []reference) (up []reference) {
	for _, r := range list {
		from, to := slices.Index(order, r.from), slices.Index(order, r.to)
		if from >= 0 && to >= 0 && to < from {
			up = append(up, r)
		}
	}
	return up
}
