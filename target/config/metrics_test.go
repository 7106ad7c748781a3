// SPDX-License-Identifier: Apache-2.0

package config

import "testing"

func TestParseMetrics(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:9889":            "127.0.0.1:9889",
		"localhost:9889":            "127.0.0.1:9889",
		":9889":                     "[::]:9889",
		"[::1]:9889":                "[::1]:9889",
		"unix:/run/gotgtd/m.sock":   "unix:/run/gotgtd/m.sock",
		"unix:/run//gotgtd/./m.soc": "unix:/run/gotgtd/m.soc",
	} {
		if got, err := ParseMetrics(text); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "9889", "127.0.0.1", "127.0.0.1:", "host:9889", "unix:m.sock", "127.0.0.1:99999", "unix:"} {
		if got, err := ParseMetrics(text); err == nil {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}
