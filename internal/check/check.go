// SPDX-License-Identifier: Apache-2.0

// Package check is what the checks of settings have in common. A type of settings has its
// check beside it, which names each setting by its key in a configuration; who checks adds where
// the settings were written.
package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Fail is told of each setting that is wrong, by its key. nil is told nothing.
type Fail func(key string, err error)

// Errorf tells of a setting.
func (f Fail) Errorf(key, format string, args ...any) {
	if f != nil {
		f(key, fmt.Errorf(format, args...))
	}
}

// Range fails unless least <= n <= most.
func (f Fail) Range(key string, n, least, most int64) {
	if n < least || n > most {
		f.Errorf(key, "%d is not in the range from %d to %d", n, least, most)
	}
}

// OneOf fails unless s is one of the choices.
func (f Fail) OneOf(key, s string, choices []string) {
	if !slices.Contains(choices, s) {
		f.Errorf(key, "%q is none of %s", s, strings.Join(choices, ", "))
	}
}

// Bounds of every time span.
const (
	MinTime = time.Millisecond
	MaxTime = 24 * time.Hour
)

// Time fails unless d is a time that makes sense.
func (f Fail) Time(key string, d time.Duration) {
	if d < MinTime || d > MaxTime {
		f.Errorf(key, "must be a time from 1ms to 24h")
	}
}

// Errors returns what a check finds, nil if nothing is wrong.
func Errors(check func(Fail)) error {
	var errs []error
	check(func(key string, err error) { errs = append(errs, fmt.Errorf("%s: %w", key, err)) })
	return errors.Join(errs...)
}
