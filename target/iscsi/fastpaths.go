// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/stream"
)

// A data segment longer than this, in bytes, that has not arrived in whole is read
// straight to where it belongs.
const bulkThreshold = 16 << 10

// FastPaths says when a Node takes the shortcuts of the data path: commands
// executed on the reading goroutine, and long data segments read straight to
// where they belong. What an initiator sees is the same either way, and tests
// run both ways to show it.
type FastPaths uint8

// The zero value is the one for use.
const (
	FastPathsAuto   FastPaths = iota // where they pay
	FastPathsAlways                  // for tests: wherever they are possible
	FastPathsNever                   // for tests: nowhere
)

// ParseFastPaths reads "auto", "always" or "never"; "" is "auto".
func ParseFastPaths(s string) (FastPaths, error) {
	switch s {
	case "", "auto":
		return FastPathsAuto, nil
	case "always":
		return FastPathsAlways, nil
	case "never":
		return FastPathsNever, nil
	}
	return FastPathsAuto, fmt.Errorf("%q is none of auto, always, never", s)
}

// inPlace reports whether a command may run on the reading goroutine.
func (f FastPaths) inPlace() bool { return f != FastPathsNever }

// direct reports whether a data segment of length bytes, in a PDU of total
// bytes that has not arrived in whole, is read into a buffer of its own. What
// the chunk can't hold always is.
func (f FastPaths) direct(length, total int) bool {
	switch f {
	case FastPathsAlways:
		return length > 0
	case FastPathsNever:
		return total > stream.ChunkSize
	}
	return length > bulkThreshold
}
