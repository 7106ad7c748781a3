// SPDX-License-Identifier: Apache-2.0

package source

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// blocks tells which call makes an open file description blocking, for all processes that share it: Fd
// of an os.File that Go has made non-blocking, and File of a connection, whose result net.FileConn and
// the like make blocking for a moment.
func blocks(call *ast.CallExpr) string {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if ok && len(call.Args) == 0 && (f.Sel.Name == "Fd" || f.Sel.Name == "File") {
		return f.Sel.Name
	}
	return ""
}

// Sockets are shared between generations and with the supervisor. Package supervisor has its tests looked
// at too, since one of them is a model of a daemon.
func TestNobodyMakesSocketsBlocking(t *testing.T) {
	looked := 0
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		room, _, _ := strings.Cut(path, "/")
		if !slices.Contains([]string{"cmd", "supervisor", "target", "internal"}, room) {
			continue
		}
		names := p.GoFiles
		if room == "supervisor" {
			names = slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles)
		}
		for _, file := range p.files(t, 0, names...) {
			looked++
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && blocks(call) != "" {
					t.Errorf("%s calls %s(), which can make a shared socket blocking: take descriptor.Number, SyscallConn, or a duplicate by way of these", path, blocks(call))
				}
				return true
			})
		}
	}
	if looked < 300 {
		t.Fatalf("only %d files were looked at", looked)
	}
}
