// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bufio"
	"fmt"
	"go/ast"
	"os"
	"slices"
	"strings"
	"testing"
)

// networkPaths are the packages in which bytes of initiators become memory.
var networkPaths = []string{
	"target/iscsi", "target/iscsi/guess", "target/iscsi/login", "target/iscsi/pdu", "target/iscsi/schedule", "target/iscsi/sequence",
	"target/iscsi/socket", "target/iscsi/stream", "target/iscsi/tally", "target/iscsi/transfer",
}

// allocators are functions that allocate as much as they are asked for.
var allocators = []string{
	"bytes.Clone", "bytes.Join", "bytes.Repeat", "slices.Clone", "slices.Collect", "slices.Concat", "slices.Grow", "slices.Insert", "strings.Repeat",
}

// allocation says what kind of allocation a call is, "" for none. Pools are told by the name Get or TryGet.
func allocation(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		if f.Name == "make" || f.Name == "append" {
			return f.Name
		}
	case *ast.SelectorExpr:
		if f.Sel.Name == "Get" || f.Sel.Name == "TryGet" {
			return f.Sel.Name
		}
		if x, ok := f.X.(*ast.Ident); ok && slices.Contains(allocators, x.Name+"."+f.Sel.Name) {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// name is what a function is called in the list of reviewed ones.
func name(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	recv := d.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	if index, ok := recv.(*ast.IndexExpr); ok {
		recv = index.X
	}
	return recv.(*ast.Ident).Name + "." + d.Name.Name
}

// allocations returns the functions of the network paths that allocate, as "package function: kinds".
func allocations(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if !slices.Contains(networkPaths, path) {
			continue
		}
		for _, file := range p.files(t, 0, p.GoFiles...) {
			for _, decl := range file.Decls {
				d, ok := decl.(*ast.FuncDecl)
				if !ok {
					continue
				}
				var kinds []string
				ast.Inspect(d, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok {
						if kind := allocation(call); kind != "" {
							kinds = append(kinds, kind)
						}
					}
					return true
				})
				slices.Sort(kinds)
				if kinds = slices.Compact(kinds); len(kinds) > 0 {
					found[fmt.Sprintf("%s %s: %s", path, name(d), strings.Join(kinds, " "))] = true
				}
			}
		}
	}
	return found
}

// TestAllocations compares what allocates on the network paths with the list of what was looked at: each line
// says on which account it is, or what bounds it.
func TestAllocations(t *testing.T) {
	const list = "testdata/allocations.txt"
	f, err := os.Open(list)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := allocations(t)
	if len(found) < 30 {
		t.Fatalf("only %d functions allocate", len(found))
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		what, why, ok := strings.Cut(line, " | ")
		switch {
		case !ok || strings.TrimSpace(why) == "":
			t.Errorf("%s:%d: no reason behind \" | \"", list, n)
		case !found[what]:
			t.Errorf("%s:%d: there is no %q any more: take the line out, or look at what it is now", list, n, what)
		}
		delete(found, what)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for what := range found {
		t.Errorf("%q is not in %s: ask an account before it allocates for an initiator (package account), and add a line with \" | \" and what bounds it", what, list)
	}
}
