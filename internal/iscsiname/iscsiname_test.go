// SPDX-License-Identifier: Apache-2.0

package iscsiname

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{"iqn.1993-08.org.debian:01:a", "iqn.a_b", "a", "iqn.ü", "eui.0123456789abcdef", strings.Repeat("n", MaxLen)} {
		if err := Check(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, why := range map[string]string{
		"": "at least one", strings.Repeat("n", MaxLen+1): "at most 223", "iqn.a b": `' '`, "iqn.a,b": `','`,
		"iqn.a\x1bb": `'\x1b'`, "iqn.a\u2003b": `'\u2003'`, "iqn.\xff\xfe": "not UTF-8", "iqn.a\x00": `'\x00'`, "iqn.a\u0085": `'\u0085'`,
	} {
		if err := Check(bad); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", bad, err, why)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a b": "a b", "\xff\xfe": "\uFFFD\uFFFD", "caf\xe9": "caf\uFFFD", "a\nb\x1b[2J": "a\uFFFDb\uFFFD[2J",
		"\u202egnp": "\uFFFDgnp", "0123456789abcdef": "0123456789abcdef", "0123456789abcdefg": "0123456789abc…",
		strings.Repeat("ü", 9): "üüüüüü…", strings.Repeat("x", 1<<20): "xxxxxxxxxxxxx…",
	} {
		if got := Printable(in, 16); got != want {
			t.Errorf("%.40q: %q, want %q", in, got, want)
		}
	}
}

func TestPrintableIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, most := string(rapid.SliceOf(rapid.Byte()).Draw(t, "in")), rapid.IntRange(len(cut), 64).Draw(t, "most")
		out := Printable(in, most)
		if len(out) > most || !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return r != unicode.ReplacementChar && !unicode.IsPrint(r) }) {
			t.Errorf("%q in %d bytes: %q", in, most, out)
		}
		if again := Printable(out, most); again != out {
			t.Errorf("%q, and again %q", out, again)
		}
	})
}
