// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// A PanicError is a panic of a plug-in.
type PanicError struct {
	Value string // what it panicked with, cut off after maxPanic bytes
	Where string // function, file and line that panicked
}

// maxPanic is how much of a panic's value is kept, in bytes.
const maxPanic = 256

// Error returns a text such as
//
//	the plug-in panicked: index out of range [1] with length 0 (main.(*disk).Read, disk.go:27)
func (e *PanicError) Error() string {
	return fmt.Sprintf("the plug-in panicked: %s (%s)", e.Value, e.Where)
}

// contain calls f and makes a panic its error.
func contain(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: panicValue(p), Where: panicPlace()}
		}
	}()
	return f()
}

// panicValue prints what a plug-in panicked with, which may panic itself.
func panicValue(p any) string {
	text := fmt.Sprintf("a value of type %T", p)
	func() {
		defer func() { _ = recover() }()
		text = fmt.Sprint(p)
	}()
	if len(text) > maxPanic {
		text = strings.ToValidUTF8(text[:maxPanic], "") + "..."
	}
	return text
}

// panicPlace finds the function that panicked; it is called while the stack of
// the panic is there.
func panicPlace() string {
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
