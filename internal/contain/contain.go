// SPDX-License-Identifier: Apache-2.0

// Package contain makes a panic an error, where a call's failure must not be the
// process's end.
package contain

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// A Panic is what a call panicked with.
type Panic struct {
	Value string // printed, cut off after maxValue bytes
	Where string // function, file and line that panicked
}

// maxValue is how much of a panic's value is kept, in bytes.
const maxValue = 256

// Error returns a text such as
//
//	panic: index out of range [1] with length 0 (main.(*disk).Read, disk.go:27)
func (p *Panic) Error() string { return fmt.Sprintf("panic: %s (%s)", p.Value, p.Where) }

// Call calls f and makes a panic its error, a [*Panic].
func Call(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Panic{Value: value(p), Where: place()}
		}
	}()
	return f()
}

// value prints what was panicked with, which may panic itself.
func value(p any) string {
	text := fmt.Sprintf("a value of type %T", p)
	func() {
		defer func() { _ = recover() }()
		text = fmt.Sprint(p)
	}()
	if len(text) > maxValue {
		text = strings.ToValidUTF8(text[:maxValue], "") + "..."
	}
	return text
}

// place finds the function that panicked; it is called while the stack of the panic is
// there.
func place() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for panicking := false; ; {
		f, more := frames.Next()
		inRuntime := strings.HasPrefix(f.Function, "runtime.")
		if panicking && !inRuntime {
			name := f.Function[strings.LastIndexByte(f.Function, '/')+1:]
			return fmt.Sprintf("%s, %s:%d", name, filepath.Base(f.File), f.Line)
		}
		panicking = panicking || inRuntime && strings.HasSuffix(f.Function, "panic")
		if !more {
			return "at an unknown place"
		}
	}
}
