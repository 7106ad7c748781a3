// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a configuration file. The zero Pos stands for what no file
// says.
type Pos struct {
	File   string
	Line   int // from 1
	Column int // from 1, in characters
}

// String prints the place as "file:line:column".
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Errorf is an error about what was written here. The place stands before it,
// if there is one.
func (p Pos) Errorf(format string, args ...any) error {
	return &Error{Pos: p, Err: fmt.Errorf(format, args...)}
}

// Error is one thing wrong with a configuration, or one warning about it.
type Error struct {
	Pos Pos
	Key string // the key or directive at fault, as the file spells it; empty for a fault of syntax
	Err error  // what is wrong

	// Unavailable marks what is wrong with a backing store and not with the
	// configuration: it may be right later, and a start goes on without it.
	Unavailable bool

	path string // canonical path of the value, such as "targets[0].luns[1].path"
}

// Error prints "file:line:column: key: what", without the parts that are not
// known.
func (e *Error) Error() string {
	var b strings.Builder
	if p := e.Pos.String(); p != "" {
		b.WriteString(p + ": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Errors is everything wrong with a configuration, in the order of the file.
type Errors []*Error

// Renamed names the file in which errors are: a text that was read as that of the file
// at path, and does not stand there, has another name. Other errors are left alone.
func Renamed(err error, path, name string) error {
	var list Errors
	if errors.As(err, &list) {
		for _, e := range list {
			if e.Pos.File == path {
				e.Pos.File = name
			}
		}
	}
	return err
}

// Error prints one line for each error.
func (l Errors) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns each of the errors.
func (l Errors) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// orNil is l as an error: nil, not an empty list, when nothing is wrong.
func (l Errors) orNil() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// sorted returns the errors in the order of the files, line by line, without
// repetitions.
func (l Errors) sorted(files []string) Errors {
	slices.SortStableFunc(l, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.Pos.File), slices.Index(files, b.Pos.File)),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return slices.CompactFunc(l, func(a, b *Error) bool { return a.Error() == b.Error() })
}

// without leaves out the errors about a value that others has an error about
// already, be it the value itself, what it is in, or what is in it.
func (l Errors) without(others Errors) Errors {
	return slices.DeleteFunc(slices.Clone(l), func(e *Error) bool {
		return slices.ContainsFunc(others, func(o *Error) bool {
			return o.path != "" && (within(e.path, o.path) || within(o.path, e.path))
		})
	})
}

// within reports whether path is outer or a part of it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// place is where a value was written, and under which name.
type place struct {
	pos Pos
	key string
}

// places finds the place of each value by its canonical path.
type places map[string]place

// find returns the place of path. A value that was not written has the
// position of what it would be in, and its canonical path for a name.
func (m places) find(path string) place {
	if p, ok := m[path]; ok {
		return p
	}
	for outer := path; outer != ""; {
		outer = outer[:max(strings.LastIndexByte(outer, '.'), strings.LastIndexByte(outer, '['), 0)]
		if p, ok := m[outer]; ok {
			return place{p.pos, path}
		}
	}
	return place{key: path}
}

// errorf makes the error that says what is wrong with the value at path.
func (m places) errorf(path, format string, args ...any) *Error {
	p := m.find(path)
	return &Error{Pos: p.pos, Key: p.key, Err: fmt.Errorf(format, args...), path: path}
}
