// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestLabCount(t *testing.T) {
	tests := map[string]struct {
		out  string
		want count
		ok   bool
	}{
		"passed":     {"   1.0s  ok  boot\n\n12 passed, 0 failed\n", count{12, 0}, true},
		"failed":     {"\n3 passed, 2 failed\nexit status 1\n", count{3, 2}, true},
		"no start":   {"lab: can't build the image\nexit status 1\n", count{}, false},
		"nothing":    {"", count{}, false},
		"not at end": {"7 passed, 0 failed\npanic: x\n\ngoroutine 1\n", count{}, false},
		"a summary":  {"lab-x: 2 steps passed, 0 failed, 19 s\n", count{}, false},
	}
	for name, tc := range tests {
		if got, ok := labCount([]byte(tc.out)); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, ok, tc.want, tc.ok)
		}
	}
}
