// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds how deep a file may nest. The configuration itself nests
// nine deep.
const maxDepth = 64

// A scalar is a field of a file's type that parses its own text.
type scalar interface {
	// parse sets the field. quoted says that the text is a YAML string, not a
	// number, a truth value or null.
	parse(text string, quoted bool) error
}

// reader fills the types of a YAML or JSON file by their yaml tags, and notes
// the place of everything it meets. Unlike the decoder of the YAML library it
// goes on after an error.
type reader struct {
	file    string
	lenient bool // JSON as gotgt reads it: unknown keys are warnings
	places  places
	errs    Errors
	notes   Errors
}

// read parses data into the struct that v points to.
func (r *reader) read(data []byte, v any) {
	body, err := parseYAML(data)
	switch {
	case err != nil:
		pos, err := syntaxError(err)
		pos.File = r.file
		r.errs = append(r.errs, &Error{Pos: pos, Err: err})
	case body == nil:
		r.places[""] = place{pos: Pos{r.file, 1, 1}}
	default:
		r.value(body, reflect.ValueOf(v).Elem(), "")
	}
}

// parseYAML returns the one document in data, nil if it is empty. The library
// recurses, and it has panicked on malformed input before: the depth is
// checked first, and a panic is an error like any other.
func parseYAML(data []byte) (body ast.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("this is not YAML")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if err := checkDepth(tokens); err != nil {
		return nil, err
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	for _, doc := range f.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.NullType:
		case body != nil:
			return nil, &yaml.SyntaxError{Message: "a second document in one file", Token: doc.Body.GetToken()}
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// checkDepth refuses what would make the library recurse without end: brackets
// in brackets, and entries that begin on one line.
func checkDepth(tokens token.Tokens) error {
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			entries++
		}
		if flow > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth {
			return &yaml.SyntaxError{Message: "nested too deep", Token: t}
		}
	}
	return nil
}

// syntaxError takes place and message out of an error of the YAML library.
func syntaxError(err error) (Pos, error) {
	var located yaml.Error
	if !errors.As(err, &located) {
		return Pos{Line: 1, Column: 1}, err
	}
	pos := Pos{Line: 1, Column: 1}
	if t := located.GetToken(); t != nil && t.Position != nil {
		pos.Line, pos.Column = t.Position.Line, t.Position.Column
	}
	if strings.Contains(located.GetMessage(), "character '\t'") {
		return pos, errors.New("a tab, where YAML takes spaces alone: indent with spaces")
	}
	return pos, errors.New(located.GetMessage())
}

// position is where a node begins.
func (r *reader) position(n ast.Node) Pos {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return Pos{r.file, t.Position.Line, t.Position.Column}
	}
	return Pos{r.file, 1, 1}
}

func (r *reader) errorf(n ast.Node, path, format string, args ...any) {
	r.errs = append(r.errs, &Error{Pos: r.position(n), Key: path, Err: fmt.Errorf(format, args...), path: path})
}

// value fills v from n, which stands at path.
func (r *reader) value(n ast.Node, v reflect.Value, path string) {
	r.places[path] = place{r.position(n), path}
	if n.Type() == ast.NullType {
		r.errorf(n, path, "has no value")
		return
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		r.scalar(n, s, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(n, v.Elem(), path)
	case reflect.Struct:
		r.mapping(n, path, func(key string, kv *ast.MappingValueNode) {
			r.field(key, kv, v, path)
		})
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		r.mapping(n, path, func(key string, kv *ast.MappingValueNode) {
			elem := reflect.New(v.Type().Elem()).Elem()
			r.value(kv.Value, elem, join(path, key))
			v.SetMapIndex(reflect.ValueOf(key), elem)
		})
	case reflect.Slice:
		r.sequence(n, v, path)
	default:
		r.plain(n, v, path)
	}
}

// mapping calls each for every key of the mapping n, but once only.
func (r *reader) mapping(n ast.Node, path string, each func(key string, kv *ast.MappingValueNode)) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		r.errorf(n, path, "must be a mapping, but is %s", kind(n))
		return
	}
	seen := map[string]bool{}
	for _, kv := range m.Values {
		key, ok := scalarText(kv.Key)
		switch {
		case !ok || kv.Key.Type() == ast.MergeKeyType:
			r.errorf(kv.Key, path, "the key here must be a word, but is %s", kind(kv.Key))
		case seen[key]:
			r.errorf(kv.Key, join(path, key), "is given twice")
		case kv.Value.Type() == ast.NullType:
			r.errorf(kv.Key, join(path, key), "has no value")
		default:
			seen[key] = true
			each(key, kv)
		}
	}
}

// field fills the field of the struct v that is tagged with key.
func (r *reader) field(key string, kv *ast.MappingValueNode, v reflect.Value, path string) {
	field, known := fieldByKey(v, key)
	if field.IsValid() {
		r.value(kv.Value, field, join(path, key))
		return
	}
	err := &Error{Pos: r.position(kv.Key), Key: join(path, key)}
	if r.lenient {
		err.Err = errors.New("unknown key, without effect")
		r.notes = append(r.notes, err)
		return
	}
	err.Err = fmt.Errorf("unknown key%s, expected one of %s", didYouMean(key, known), strings.Join(known, ", "))
	r.errs = append(r.errs, err)
}

func (r *reader) sequence(n ast.Node, v reflect.Value, path string) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.errorf(n, path, "must be a list, but is %s", kind(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, elem := range s.Values {
		r.value(elem, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (r *reader) scalar(n ast.Node, s scalar, path string) {
	text, ok := scalarText(n)
	if !ok {
		r.errorf(n, path, "must be a single value, but is %s", kind(n))
		return
	}
	if err := s.parse(text, isString(n)); err != nil {
		r.errorf(n, path, "%w", err)
	}
}

// truthWords are truth values as YAML 1.1 has them, and as administrators write
// them. In quotes they are text.
var truthWords = []string{"yes", "no", "on", "off"}

// plain fills a string, a truth value or a number.
func (r *reader) plain(n ast.Node, v reflect.Value, path string) {
	text, ok := scalarText(n)
	switch {
	case v.Kind() == reflect.String && ok && isString(n):
		v.SetString(text)
	case v.Kind() == reflect.String && ok:
		r.errorf(n, path, "must be text, but is %s: put it into quotes", kind(n))
	case v.Kind() == reflect.Bool && n.Type() == ast.BoolType:
		v.SetBool(n.(*ast.BoolNode).Value)
	case v.Kind() == reflect.Bool && n.GetToken().Type == token.StringType && slices.Contains(truthWords, text):
		v.SetBool(text == "yes" || text == "on")
	case v.Kind() == reflect.Bool:
		r.errorf(n, path, "must be true or false, but is %s", kind(n))
	case v.Kind() != reflect.String && n.Type() == ast.IntegerType:
		r.integer(n, text, v, path)
	case v.Kind() != reflect.String:
		r.errorf(n, path, "must be a number, but is %s", kind(n))
	default:
		r.errorf(n, path, "must be text, but is %s", kind(n))
	}
}

// integer takes decimal numbers alone: in YAML a leading zero means octal to
// some and nothing to others.
func (r *reader) integer(n ast.Node, text string, v reflect.Value, path string) {
	if digits := strings.TrimLeft(text, "+-"); len(digits) > 1 && digits[0] == '0' {
		r.errorf(n, path, "%s: write a decimal number without leading zeros", text)
		return
	}
	if v.CanUint() {
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			if limit, ok := rangeOf(path); ok {
				r.errorf(n, path, "%s is not in the range from %d to %d", text, limit.least, limit.most)
			} else {
				r.errorf(n, path, "%s is not in the range from 0 to %d", text, uint64(math.MaxUint64)>>(64-v.Type().Bits()))
			}
			return
		}
		v.SetUint(u)
		return
	}
	i, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		r.errorf(n, path, "%s is not a number that is possible here", text)
		return
	}
	v.SetInt(i)
}

// scalarText is the text of a node that holds a single value.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isString(n ast.Node) bool {
	return n.Type() == ast.StringType || n.Type() == ast.LiteralType
}

// kind names what a node is, for a message.
func kind(n ast.Node) string {
	switch n.Type() {
	case ast.NullType:
		return "empty"
	case ast.StringType, ast.LiteralType:
		return "text"
	case ast.IntegerType:
		return "a number"
	case ast.FloatType, ast.InfinityType, ast.NanType:
		return "a number with a fraction"
	case ast.BoolType:
		return "true or false"
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.AnchorType, ast.AliasType:
		return "an anchor or alias, which is not supported"
	case ast.TagType:
		return "tagged, which is not supported"
	}
	return "something else"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
