// SPDX-License-Identifier: Apache-2.0

// Package iscsiname has the rules for text that strangers send: what can be an iSCSI name,
// and how anything else is shown. Whoever accepts a name and whoever reads it again from
// stable storage ask the same rule, so that what was accepted can be read.
package iscsiname

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLen is the longest iSCSI name in bytes (RFC 7143 4.2.7.2).
const MaxLen = 223

// Check says why s can't be the name of an iSCSI node, nil if it can. Its type designator is
// not looked at, since initiators have names of their own making; length and characters
// are: a name is part of lists that commas separate (RFC 7143 4.2.7.3, SPC-4 7.6.4.6), of
// lines and of CBOR text.
func Check(s string) error {
	switch {
	case s == "":
		return errors.New("an iSCSI name has at least one character")
	case len(s) > MaxLen:
		return fmt.Errorf("an iSCSI name has at most %d bytes, this one has %d", MaxLen, len(s))
	case !utf8.ValidString(s):
		return fmt.Errorf("%q is not an iSCSI name: it is not UTF-8", s)
	}
	for _, r := range s {
		if r == ',' || unicode.IsControl(r) || unicode.IsSpace(r) {
			return fmt.Errorf("%q is not an iSCSI name: it has %q in it", s, r)
		}
	}
	return nil
}

const cut = "…"

// Printable is text of somebody else fit for logs, JSON, snapshots and terminals: UTF-8 of at
// most that many bytes, which can't pass for a line of its own nor steer a terminal.
// What does not print is U+FFFD; text that is too long ends with an ellipsis.
func Printable(s string, most int) string {
	long := len(s) > 4*most
	if long {
		s = s[:4*most] // of which each piece becomes at least one byte
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if len(s) <= most && !long {
		return s
	}
	n := min(len(s), most-len(cut))
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + cut
}
