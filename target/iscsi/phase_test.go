// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// diagrams reads the phases of each type in phase.go, by their numbers, and the
// moves that its comment has.
func diagrams(t *testing.T) (names map[string][]string, moves map[string]map[string][]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "phase.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	names, moves = make(map[string][]string), make(map[string]map[string][]string)
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		if decl.Tok == token.TYPE && decl.Doc != nil {
			if m := readDiagram(decl.Doc.Text()); len(m) > 0 {
				moves[decl.Specs[0].(*ast.TypeSpec).Name.Name] = m
			}
		}
		if decl.Tok == token.CONST {
			of := decl.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident).Name
			for _, s := range decl.Specs {
				name := s.(*ast.ValueSpec).Names[0].Name
				names[of] = append(names[of], strings.ToLower(strings.TrimPrefix(name, strings.TrimSuffix(of, "Phase"))))
			}
		}
	}
	return names, moves
}

func readDiagram(comment string) map[string][]string {
	m := make(map[string][]string)
	for line := range strings.Lines(comment) {
		from, to, ok := strings.Cut(line, "──►")
		if !ok {
			continue
		}
		list := strings.FieldsFunc(to, func(r rune) bool { return strings.ContainsRune(", \n", r) })
		slices.Sort(list)
		m[strings.TrimSpace(from)] = append([]string{}, list...)
	}
	return m
}

// The diagram of each type that has phases is its table.
func TestDiagramsAreTheTables(t *testing.T) {
	tables := map[string][]phases{"nodePhase": nodeMoves[:], "connPhase": connMoves[:], "sessionPhase": sessionMoves[:], "taskPhase": taskMoves[:]}
	names, want := diagrams(t)
	if d := cmp.Diff(slices.Sorted(maps.Keys(tables)), slices.Sorted(maps.Keys(want))); d != "" {
		t.Fatalf("types with a diagram: %s", d)
	}
	for name, table := range tables {
		if len(table) != len(names[name]) {
			t.Fatalf("%s: %d rows for the phases %v", name, len(table), names[name])
		}
		got := make(map[string][]string)
		for from, to := range table {
			list := []string{}
			for p, s := range names[name] {
				if has(to, uint8(p)) {
					list = append(list, s)
				}
			}
			slices.Sort(list)
			got[names[name][from]] = list
		}
		if d := cmp.Diff(want[name], got); d != "" {
			t.Errorf("%s: the comment (-) and the table (+): %s", name, d)
		}
	}
}

// What a table does not have is refused.
func TestMovesAreRefused(t *testing.T) {
	n := new(Node)
	n.freeze.phase.Store(uint32(nodeRetired))
	if n.freeze.moveLocked(nodeServing) || !n.freeze.is(set(nodeRetired)) {
		t.Error("a retired Node serves again")
	}
	c := new(conn)
	if c.move(connLeaving) || !c.move(connClosed) || c.move(connFull) || !c.is(connClosed) {
		t.Error("a connection has left its login by a logout, or come back after its end")
	}
	s := &session{phase: sessionEnding}
	if s.moveLocked(sessionOpen) || !s.moveLocked(sessionGone) || s.moveLocked(sessionEnding) {
		t.Error("a session has come back")
	}
	defer func() {
		if recover() == nil {
			t.Error("a task is answered twice")
		}
	}()
	(&task{phase: taskAnswered}).moveLocked(taskAnswered)
}
