// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"
	"fmt"

	"github.com/gotgtd/gotgtd/internal/contain"
)

// A PanicError is a panic of a plug-in.
type PanicError struct {
	Value string // what it panicked with, cut off
	Where string // function, file and line that panicked
}

// Error returns a text such as
//
//	the plug-in panicked: index out of range [1] with length 0 (main.(*disk).Read, disk.go:27)
func (e *PanicError) Error() string {
	return fmt.Sprintf("the plug-in panicked: %s (%s)", e.Value, e.Where)
}

// contained calls f and makes a panic its error.
func contained(f func() error) error {
	err := contain.Call(f)
	if p := (*contain.Panic)(nil); errors.As(err, &p) {
		return (*PanicError)(p)
	}
	return err
}
