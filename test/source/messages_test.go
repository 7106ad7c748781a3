// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// loggers are the functions that log: where the message is among their arguments, and its level if that is given.
var loggers = map[string]struct {
	message int
	level   string
}{
	"Debug": {0, "debug"}, "Info": {0, "info"}, "Warn": {0, "warn"}, "Error": {0, "error"},
	"DebugContext": {1, "debug"}, "InfoContext": {1, "info"}, "WarnContext": {1, "warn"}, "ErrorContext": {1, "error"},
	"Log": {2, ""}, "LogAttrs": {2, ""},
	"complainf": {0, "warn"}, // supervisor/service: what anyone can bring about
}

// passesOn are functions that log what their callers say, which are looked at.
var passesOn = []string{"complainf", "Log", "log"}

// notLogging are packages that log nothing that an administrator reads.
var notLogging = []string{"internal/initiator", "internal/logging", "target/storage/storagetest", "supervisor/supervisortest"}

// differs stands for what is not a literal in a message.
const differs = "…"

// message is what an expression says; ok if a part of it at least is a literal.
func message(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		left, ok := message(e.X)
		right, okToo := message(e.Y)
		return left + right, ok || okToo
	case *ast.ParenExpr:
		return message(e.X)
	}
	return differs, false
}

// given is the level that a call of Log names, if it does.
func given(call *ast.CallExpr) string {
	for _, a := range call.Args {
		if s, ok := a.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Level") {
			return strings.ToLower(strings.TrimPrefix(s.Sel.Name, "Level"))
		}
	}
	return ""
}

// logged returns the messages in the code with their level, "" for one that is not told.
func logged(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		root, _, _ := strings.Cut(path, "/")
		if !slices.Contains([]string{"cmd", "target", "supervisor", "internal"}, root) || slices.Contains(notLogging, path) || strings.HasSuffix(path, "/example") {
			continue
		}
		for _, file := range p.files(t, 0, p.GoFiles...) {
			ast.Inspect(file, func(n ast.Node) bool {
				if d, ok := n.(*ast.FuncDecl); ok && slices.Contains(passesOn, d.Name.Name) {
					return false
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				f, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				l, ok := loggers[f.Sel.Name]
				if x, isName := f.X.(*ast.Ident); !ok || len(call.Args) <= l.message || isName && x.Name == "http" {
					return true
				}
				text, ok := message(call.Args[l.message])
				if !ok {
					t.Errorf("%s: the message of a call of %s is no literal: put what differs into attributes", path, f.Sel.Name)
				}
				if l.level == "" {
					l.level = given(call)
				}
				if was, twice := found[text]; twice && was != l.level {
					l.level = "" // several
				}
				found[text] = l.level
				return true
			})
		}
	}
	return found
}

// row is a line of the tables of docs/messages.md.
var row = regexp.MustCompile("^\\| `(.+)` \\| ([a-z]+) \\| (.+) \\| (.+) \\|$")

// TestMessages compares what is logged with the catalogue, in both directions.
func TestMessages(t *testing.T) {
	const catalogue = "../../docs/messages.md"
	text, err := os.ReadFile(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	found := logged(t)
	if len(found) < 60 {
		t.Fatalf("only %d messages are in the code", len(found))
	}
	seen := map[string]bool{}
	for n, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		at := fmt.Sprintf("%s:%d", catalogue, n+1)
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("%s: the row is not \"| `message` | level | meaning | what to do |\"", at)
			continue
		}
		message, level, todo := m[1], m[2], m[4]
		want, ok := found[message]
		switch {
		case !ok:
			t.Errorf("%s: nothing logs %q any more: take the row out, or correct it", at, message)
		case want != "" && want != level:
			t.Errorf("%s: %q is logged as %s", at, message, want)
		case seen[message]:
			t.Errorf("%s: %q has two rows", at, message)
		case (level == "warn" || level == "error") && todo == "nothing":
			t.Errorf("%s: %q is a warning about nothing: say what to do, or log it as info", at, message)
		}
		seen[message] = true
	}
	for message := range found {
		if !seen[message] {
			t.Errorf("%q has no row in %s: add one with its meaning and what to do", message, catalogue)
		}
	}
}
