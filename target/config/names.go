// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// iqn is the fixed part of an iSCSI qualified name: the month in which the
// naming authority owned its domain, and the domain, reversed
// (RFC 7143 4.2.7.4).
var iqn = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:.*)?$`)

// checkName reports what is wrong with an iSCSI name in lower case
// (RFC 7143 4.2.7).
func checkName(s string) error {
	if len(s) > iscsiname.MaxLen {
		return fmt.Errorf("an iSCSI name has at most %d bytes, this one has %d", iscsiname.MaxLen, len(s))
	}
	switch {
	case strings.HasPrefix(s, "iqn."):
		if !iqn.MatchString(s) {
			return fmt.Errorf("%q is not an iSCSI qualified name such as iqn.2001-04.com.example:storage", s)
		}
		return checkNameCharacters(s)
	case strings.HasPrefix(s, "eui."):
		if !isHex(s[4:], 16) {
			return fmt.Errorf("%q is not an EUI-64 name: eui. and 16 hexadecimal digits", s)
		}
		return nil
	case strings.HasPrefix(s, "naa."):
		if _, err := scsi.ParseNAA(s[4:]); err != nil {
			return fmt.Errorf("%q is not an NAA name: %w", s, err)
		}
		return nil
	}
	return fmt.Errorf(`%q is not an iSCSI name: it begins with none of "iqn.", "eui.", "naa."`, s)
}

// checkAnyName reports why a name can't be served even where RFC 7143 is not
// asked: it has to fit into the text of a login, a line of a log and a SCSI name string.
func checkAnyName(s string) error {
	if len(s) > iscsiname.MaxLen {
		return fmt.Errorf("a target's name has at most %d bytes, this one has %d", iscsiname.MaxLen, len(s))
	}
	if !utf8.ValidString(s) {
		return errors.New("a target's name is UTF-8 text")
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }); i >= 0 {
		return fmt.Errorf("%q has a blank or a control character in it", s)
	}
	return nil
}

// checkNameCharacters refuses what the stringprep profile for iSCSI names
// (RFC 3722) forbids in a name that is already in lower case: all ASCII
// characters but letters, digits, "-", "." and ":", and beyond ASCII whatever
// is no letter, digit or mark. It lets "_" pass, which the profile forbids, but
// many names in use have: that is worth a warning only.
func checkNameCharacters(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("an iSCSI name is UTF-8 text")
	}
	for _, r := range s {
		ok := unicode.In(r, unicode.L, unicode.N, unicode.M) && !unicode.IsUpper(r)
		if r < utf8.RuneSelf {
			ok = r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-.:_", r)
		}
		if !ok {
			return fmt.Errorf("%q has %q in it, which an iSCSI name can't have", s, r)
		}
	}
	return nil
}

func isHex(s string, digits int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == digits
}
