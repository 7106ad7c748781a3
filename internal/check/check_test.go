// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"testing"
	"time"
)

func TestErrors(t *testing.T) {
	bad := errors.New("is missing")
	err := Errors(func(fail Fail) {
		fail.Range("low", 0, 1, 2)
		fail.Range("fits", 2, 1, 2)
		fail.OneOf("word", "c", []string{"a", "b"})
		fail.OneOf("fits", "b", []string{"a", "b"})
		fail.Time("time", MaxTime+time.Nanosecond)
		fail.Time("fits", MinTime)
		fail("path", bad)
	})
	want := "low: 0 is not in the range from 1 to 2\n" + `word: "c" is none of a, b` + "\ntime: must be a time from 1ms to 24h\npath: is missing"
	if err == nil || err.Error() != want || !errors.Is(err, bad) {
		t.Errorf("%v\nwant\n%s", err, want)
	}
	if err := Errors(func(fail Fail) { fail.Range("fits", 1, 1, 1) }); err != nil {
		t.Error(err)
	}
	Fail(nil).Errorf("nobody", "listens")
}
