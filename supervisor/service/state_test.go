// SPDX-License-Identifier: Apache-2.0

package service

import (
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readDiagram reads the moves that a text has.
func readDiagram(text string) map[State][]State {
	m := map[State][]State{}
	for line := range strings.Lines(text) {
		from, to, ok := strings.Cut(line, "──►")
		if !ok {
			continue
		}
		var list []State
		for name := range strings.SplitSeq(to, ",") {
			list = append(list, State(strings.TrimSpace(name)))
		}
		m[State(strings.TrimSpace(strings.TrimPrefix(from, "//")))] = list
	}
	return m
}

// The diagrams in the comment and in the documentation are the table.
func TestDiagramsAreTheTable(t *testing.T) {
	for _, path := range []string{"state.go", "../../docs/supervisor.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(readDiagram(string(text)), moves); d != "" {
			t.Errorf("%s (-) and the table (+): %s", path, d)
		}
	}
}

func TestImpossibleMovesAreRefused(t *testing.T) {
	var log syncBuffer
	s := &Service{log: slog.New(slog.NewTextHandler(&log, nil)), state: Stopped}
	if s.move(Serving) || s.state != Stopped || !strings.Contains(log.String(), "from=stopped to=serving") {
		t.Errorf("the service is %s; the log: %s", s.state, &log)
	}
	for _, to := range []State{Starting, Serving, Reloading, Serving, Waiting, Starting, Stopping, Stopped} {
		if from := s.state; !s.move(to) || s.state != to {
			t.Errorf("from %s to %s: the service is %s", from, to, s.state)
		}
	}
}

// Nothing but move changes the state; resume begins with one that was saved.
func TestStateChangesInOneFunction(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if a, ok := n.(*ast.AssignStmt); ok && slices.ContainsFunc(a.Lhs, isState) {
					found = append(found, f.Name.Name)
				}
				return true
			})
		}
	}
	slices.Sort(found)
	if d := cmp.Diff([]string{"move", "resume"}, found); d != "" {
		t.Errorf("the functions that set the state (+): %s", d)
	}
}

func isState(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "state"
}
