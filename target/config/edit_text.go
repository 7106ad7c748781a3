// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// yamlPath leads to a value: keys are strings, places in a list are ints.
type yamlPath []any

func (p yamlPath) to(steps ...any) yamlPath { return append(slices.Clone(p), steps...) }

// textAction is what a change does to a value.
type textAction int

const (
	put    textAction = iota // sets the value of a key
	add                      // appends an item to a list
	remove                   // removes a key or item, and what holds nothing else
)

// textChange is one change of a file's text.
type textChange struct {
	what textAction
	at   yamlPath
}

// errShape is the answer to a text that is right, but unusual.
var errShape = errors.New("its layout is unusual")

// spot is where a value stands in the text.
type spot struct {
	node  ast.Node
	start int  // of its entry: the key, or the "-"; byte offset
	limit int  // where the next entry of a block begins, at the latest
	flow  bool // it stands within brackets or braces
}

// textTree finds values in a text.
type textTree struct {
	text  string
	lines []int // where they begin
	model reflect.Value
}

// apply makes the change in text. The values that it writes are those of
// model, in which it is made already.
func (c textChange) apply(text string, model reflect.Value) (string, error) {
	t := &textTree{text: text, model: model, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			t.lines = append(t.lines, i+1)
		}
	}
	body, err := parseYAML([]byte(text))
	if err != nil {
		return "", err
	}
	if body == nil {
		return t.first(c)
	}
	chain := []spot{{node: body, limit: len(text)}}
	for _, step := range c.at {
		next, ok := t.step(chain[len(chain)-1], step)
		if !ok {
			break
		}
		chain = append(chain, next)
	}
	found := len(chain) - 1
	switch {
	case c.what == remove && found < len(c.at):
		return text, nil
	case c.what == remove:
		return t.remove(c.at, chain)
	case found == len(c.at):
		return t.replace(c.at, chain[found])
	}
	return t.insert(c.at[:found+1], chain[found])
}

// first writes the first entry of a file that has none.
func (t *textTree) first(c textChange) (string, error) {
	if c.what == remove {
		return t.text, nil
	}
	block, err := t.block(c.at[:1], "")
	if err != nil {
		return "", err
	}
	if t.text != "" && !strings.HasSuffix(t.text, "\n") {
		return t.text + "\n" + block, nil
	}
	return t.text + block + "\n", nil
}

// step goes from a value to one in it.
func (t *textTree) step(from spot, to any) (spot, bool) {
	switch n := from.node.(type) {
	case *ast.MappingNode:
		i := slices.IndexFunc(n.Values, func(kv *ast.MappingValueNode) bool {
			key, ok := scalarText(kv.Key)
			return ok && key == to
		})
		if i < 0 {
			return spot{}, false
		}
		s := spot{node: n.Values[i].Value, start: t.offset(n.Values[i].Key.GetToken()), limit: from.limit, flow: from.flow || n.IsFlowStyle}
		if i+1 < len(n.Values) && !s.flow {
			s.limit = t.offset(n.Values[i+1].Key.GetToken())
		}
		return s, true
	case *ast.SequenceNode:
		i, ok := to.(int)
		if !ok || i >= len(n.Values) {
			return spot{}, false
		}
		s := spot{node: n.Values[i], limit: from.limit, flow: from.flow || n.IsFlowStyle}
		if s.flow {
			s.start = t.valueStart(n.Values[i])
			return s, true
		}
		s.start = t.offset(n.Entries[i].Start)
		if i+1 < len(n.Values) {
			s.limit = t.offset(n.Entries[i+1].Start)
		}
		return s, true
	}
	return spot{}, false
}

// offset is where a token begins in the text. The library counts characters.
func (t *textTree) offset(tok *token.Token) int {
	line := tok.Position.Line - 1
	if line < 0 || line >= len(t.lines) {
		return len(t.text)
	}
	at, rest := t.lines[line], tok.Position.Column-1
	for i := range t.text[at:] {
		if rest == 0 {
			return at + i
		}
		rest--
	}
	return len(t.text)
}

// valueStart is where a value begins: a mapping in a block at its first key.
func (t *textTree) valueStart(n ast.Node) int {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return t.offset(m.Values[0].Key.GetToken())
	}
	return t.offset(n.GetToken())
}

// line is the line of an offset, from 0, and its text.
func (t *textTree) line(offset int) (int, string) {
	i, found := slices.BinarySearch(t.lines, offset)
	if !found {
		i--
	}
	line, _, _ := strings.Cut(t.text[t.lines[i]:], "\n")
	return i, line
}

// end is where the last line of a block entry ends that is neither empty nor a
// comment.
func (t *textTree) end(s spot) int {
	last, _ := t.line(s.limit)
	if s.limit == len(t.text) {
		last = len(t.lines)
	}
	for last--; last > 0; last-- {
		_, line := t.line(t.lines[last])
		if trimmed := strings.TrimSpace(line); trimmed != "" && trimmed[0] != '#' && line != "---" && line != "..." {
			break
		}
	}
	_, line := t.line(t.lines[last])
	return max(t.lines[last]+len(line), s.start)
}

// splice replaces a part of the text.
func (t *textTree) splice(from, to int, with string) string {
	return t.text[:from] + with + t.text[to:]
}

// remove removes the last value of a chain, and with it what holds nothing
// else.
func (t *textTree) remove(at yamlPath, chain []spot) (string, error) {
	i := len(at)
	for i > 1 && size(chain[i-1].node) == 1 {
		if i--; i < 1 {
			break
		}
	}
	s, parent := chain[i], chain[i-1].node
	if s.flow {
		return t.removeFlow(s, parent)
	}
	line, text := t.line(s.start)
	before := text[:s.start-t.lines[line]]
	if strings.TrimSpace(before) == "" {
		end := t.end(s)
		if end < len(t.text) {
			end++ // the line's end
		}
		return t.splice(t.lines[line], end, ""), nil
	}
	// The first key of a list's item stands behind the "-".
	if m, ok := parent.(*ast.MappingNode); ok && len(m.Values) > 1 && s.limit < len(t.text) {
		return t.splice(s.start, t.offset(m.Values[1].Key.GetToken()), ""), nil
	}
	return "", errShape
}

// size is the number of entries of a collection.
func size(n ast.Node) int {
	switch n := n.(type) {
	case *ast.MappingNode:
		return len(n.Values)
	case *ast.SequenceNode:
		return len(n.Values)
	}
	return 0
}

// removeFlow removes an entry from brackets or braces, with its comma.
func (t *textTree) removeFlow(s spot, parent ast.Node) (string, error) {
	starts := t.starts(parent)
	i := slices.Index(starts, s.start)
	switch {
	case i < 0 || len(starts) < 2:
		return "", errShape
	case i == 0:
		return t.splice(starts[0], starts[1], ""), nil
	}
	return t.splice(flowEnd(t.text, starts[i-1]), flowEnd(t.text, s.start), ""), nil
}

// starts are where the entries of a collection in brackets or braces begin.
func (t *textTree) starts(n ast.Node) []int {
	var list []int
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, kv := range n.Values {
			list = append(list, t.offset(kv.Key.GetToken()))
		}
	case *ast.SequenceNode:
		for _, v := range n.Values {
			list = append(list, t.valueStart(v))
		}
	}
	return list
}

// flowEnd is where an entry in brackets or braces ends that begins at start,
// without the space behind it.
func flowEnd(text string, start int) int {
	depth, end, fresh := 0, start, true
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case (c == '"' || c == '\'') && fresh:
			i = quoteEnd(text, i)
			end, fresh = i+1, false
			continue
		case c == '#' && (text[i-1] == ' ' || text[i-1] == '\n'):
			next := strings.IndexByte(text[i:], '\n')
			if next < 0 {
				return end
			}
			i += next
			continue
		case c == '[' || c == '{':
			depth++
		case (c == ']' || c == '}' || c == ',') && depth == 0:
			return end
		case c == ']' || c == '}':
			depth--
		case c == ' ' || c == '\n':
			continue
		}
		fresh = strings.IndexByte("[{,:", text[i]) >= 0
		end = i + 1
	}
	return end
}

// quoteEnd is where the quote ends that begins at i.
func quoteEnd(text string, i int) int {
	quote := text[i]
	for i++; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i
		}
	}
	return len(text) - 1
}

// replace gives a key another value.
func (t *textTree) replace(at yamlPath, s spot) (string, error) {
	v := t.value(at)
	if !v.IsValid() {
		return "", errShape
	}
	start := t.valueStart(s.node)
	if s.flow {
		text, err := t.flow(v)
		return t.splice(start, flowEnd(t.text, start), text), err
	}
	_, isText := scalarText(s.node)
	line, _ := t.line(start)
	endLine, _ := t.line(t.end(s))
	if isText && single(v) && line == endLine && s.node.Type() != ast.LiteralType {
		text, err := t.flow(v)
		return t.splice(start, t.scalarEnd(start), text), err
	}
	if _, ok := at[len(at)-1].(string); !ok {
		return "", errShape
	}
	block, err := t.block(at, strings.Repeat(" ", t.column(s.start)))
	if line == endLine {
		first, rest, more := strings.Cut(block, "\n")
		if block = first + t.comment(start); more {
			block += "\n" + rest
		}
	}
	return t.splice(s.start, t.end(s), strings.TrimLeft(block, " ")), err
}

// comment is the one behind a value on its line, with the space before it.
func (t *textTree) comment(start int) string {
	line, _, _ := strings.Cut(t.text[start:], "\n")
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte("[{,: ", line[i-1]) >= 0):
			i = quoteEnd(line, i)
		case c == '#' && i > 0 && (line[i-1] == ' ' || line[i-1] == '\t'):
			return line[len(strings.TrimRight(line[:i], " \t")):]
		}
	}
	return ""
}

// scalarEnd is where a single value on a line of a block ends.
func (t *textTree) scalarEnd(start int) int {
	if c := t.text[start]; c == '"' || c == '\'' {
		return quoteEnd(t.text, start) + 1
	}
	line, _, _ := strings.Cut(t.text[start:], "\n")
	line, _, _ = strings.Cut(line, " #")
	return start + len(strings.TrimRight(line, " \t"))
}

// single reports whether v is written as a single value.
func single(v reflect.Value) bool {
	return v.Kind() != reflect.Struct && v.Kind() != reflect.Slice && v.Kind() != reflect.Map
}

func (t *textTree) column(offset int) int {
	line, text := t.line(offset)
	return len([]rune(text[:offset-t.lines[line]]))
}

// insert adds a key to the mapping or an item to the list at s.
func (t *textTree) insert(at yamlPath, s spot) (string, error) {
	if s.node.Type() != ast.MappingType && s.node.Type() != ast.SequenceType {
		return "", errShape
	}
	starts := t.starts(s.node)
	m, isMapping := s.node.(*ast.MappingNode)
	q, _ := s.node.(*ast.SequenceNode)
	switch {
	case isMapping && m.IsFlowStyle || !isMapping && q.IsFlowStyle:
		if _, key := t.last(at[:len(at)-1]); len(starts) == 0 && !s.flow && key {
			return t.replace(at[:len(at)-1], spot{node: s.node, start: s.start, limit: s.limit})
		}
		return t.insertFlow(at, s, starts)
	case isMapping:
		return t.insertBlock(at, s, t.column(starts[0]))
	}
	return t.insertBlock(at, s, t.column(t.offset(q.Entries[0].Start)))
}

// last is the last step of a path, and whether it is a key.
func (t *textTree) last(at yamlPath) (any, bool) {
	if len(at) == 0 {
		return nil, false
	}
	_, ok := at[len(at)-1].(string)
	return at[len(at)-1], ok
}

func (t *textTree) insertBlock(at yamlPath, s spot, column int) (string, error) {
	block, err := t.block(at, strings.Repeat(" ", column))
	end := t.end(s)
	return t.splice(end, end, "\n"+block), err
}

func (t *textTree) insertFlow(at yamlPath, s spot, starts []int) (string, error) {
	text, err := t.flow(t.value(at))
	if key, ok := t.last(at); ok {
		text = fmt.Sprintf("%s: %s", key, text)
	}
	if len(starts) == 0 {
		open := t.offset(s.node.GetToken()) + 1
		return t.splice(open, open, text), err
	}
	end := flowEnd(t.text, starts[len(starts)-1])
	return t.splice(end, end, ", "+text), err
}

// value is what the model has at a path.
func (t *textTree) value(at yamlPath) reflect.Value {
	v := t.model
	for _, step := range at {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		switch key, ok := step.(string); {
		case !v.IsValid():
			return v
		case ok && v.Kind() == reflect.Map:
			v = v.MapIndex(reflect.ValueOf(key))
		case ok:
			v, _ = fieldByKey(v, key)
		default:
			v = v.Index(step.(int))
		}
	}
	if v.IsValid() && v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v
}

// block writes a value with its key or "-" on lines of their own, without the
// last line's end.
func (t *textTree) block(at yamlPath, indent string) (string, error) {
	v := t.value(at)
	if !v.IsValid() {
		return "", errShape
	}
	e := &yamlEncoder{}
	e.out.WriteString(indent)
	if key, ok := t.last(at); ok {
		e.entry(key.(string), v, indent)
	} else {
		e.out.WriteString("- ")
		if v.Kind() == reflect.Struct {
			e.fields(v, indent+"  ")
		} else {
			e.out.WriteString(e.scalar(v) + "\n")
		}
	}
	return strings.TrimSuffix(e.out.String(), "\n"), e.err
}

// flow writes a value on one line.
func (t *textTree) flow(v reflect.Value) (string, error) {
	if !v.IsValid() {
		return "", errShape
	}
	e := &yamlEncoder{}
	e.flow(v)
	return e.out.String(), e.err
}
