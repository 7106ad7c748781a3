// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// yamlEncoder writes the types of the YAML file. It is here because the
// library's encoder leaves text without quotes that its own decoder takes for
// a number.
type yamlEncoder struct {
	out strings.Builder
	err error
}

// fields writes the fields of a struct, one line or block each, with indent
// before all but the first.
func (e *yamlEncoder) fields(v reflect.Value, indent string) {
	next := ""
	for f := range fileFields(v) {
		if !f.omit {
			e.entry(next+f.key, f.value, indent)
			next = indent
		}
	}
	if next == "" && indent != "" {
		e.out.WriteString("{}\n")
	}
}

// entry writes a key and its value. indent is that of the key.
func (e *yamlEncoder) entry(key string, v reflect.Value, indent string) {
	inner := indent + "  "
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	e.out.WriteString(key + ":")
	if isText(v) {
		e.out.WriteString(" " + e.scalar(v) + "\n")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		e.out.WriteString("\n" + inner)
		e.fields(v, inner)
	case reflect.Slice:
		if v.Len() == 0 {
			e.out.WriteString(" []")
		}
		e.out.WriteString("\n")
		for i := range v.Len() {
			e.out.WriteString(inner + "- ")
			if elem := v.Index(i); elem.Kind() == reflect.Struct {
				e.fields(elem, inner+"  ")
			} else {
				e.out.WriteString(e.scalar(elem) + "\n")
			}
		}
	case reflect.Map:
		e.out.WriteString("\n")
		options := v.Interface().(map[string]string)
		for _, name := range slices.Sorted(maps.Keys(options)) {
			e.out.WriteString(inner + e.quote(name) + ": " + e.quote(options[name]) + "\n")
		}
	default:
		e.out.WriteString(" " + e.scalar(v) + "\n")
	}
}

// texter is a single value that has a form of its own in a file.
type texter interface{ text() string }

func isText(v reflect.Value) bool { return v.Type().Implements(reflect.TypeFor[texter]()) }

// scalar writes a single value.
func (e *yamlEncoder) scalar(v reflect.Value) string {
	if b, ok := v.Interface().(fileBytes); ok {
		return e.quote(b.text()) // it may look like a number
	}
	if t, ok := v.Interface().(texter); ok {
		return t.text()
	}
	if v.Kind() == reflect.String {
		return e.quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}

// plainText is text that every YAML parser takes for text without quotes, but
// for notText.
var (
	plainText = regexp.MustCompile(`^[A-Za-z/]([A-Za-z0-9/._:-]*[A-Za-z0-9])?$`)
	notText   = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|y|n|null)$`)
)

// quote writes text, in quotes unless it is plain.
func (e *yamlEncoder) quote(text string) string {
	switch {
	case !utf8.ValidString(text):
		e.err = errors.New("text that is not UTF-8 can't stand in YAML")
	case plainText.MatchString(text) && !notText.MatchString(text):
		return text
	}
	return strconv.Quote(text)
}

// flow writes a value within brackets and braces, on one line.
func (e *yamlEncoder) flow(v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if isText(v) {
		e.flowScalar(v)
		return
	}
	comma := func(i int) {
		if i > 0 {
			e.out.WriteString(", ")
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		e.out.WriteString("{")
		n := 0
		for f := range fileFields(v) {
			if f.omit {
				continue
			}
			comma(n)
			e.out.WriteString(f.key + ": ")
			e.flow(f.value)
			n++
		}
		e.out.WriteString("}")
	case reflect.Slice:
		e.out.WriteString("[")
		for i := range v.Len() {
			comma(i)
			e.flow(v.Index(i))
		}
		e.out.WriteString("]")
	case reflect.Map:
		e.out.WriteString("{")
		options := v.Interface().(map[string]string)
		for i, name := range slices.Sorted(maps.Keys(options)) {
			comma(i)
			e.out.WriteString(e.quote(name) + ": " + e.quote(options[name]))
		}
		e.out.WriteString("}")
	default:
		e.flowScalar(v)
	}
}

func (e *yamlEncoder) flowScalar(v reflect.Value) {
	text := e.scalar(v)
	if v.Kind() == reflect.String && strings.Contains(text, ":") && text[0] != '"' {
		text = strconv.Quote(text) // the library takes [a:b] for a mapping
	}
	e.out.WriteString(text)
}
