// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
)

// sizeUnits are the units of a size, all powers of 1024 as in tgt, largest
// first. A number may be followed by the unit alone, by "iB" or by "B".
const sizeUnits = "PTGMK"

// ParseSize parses a number of bytes, at least 0: "1073741824", "1GiB", "512MiB",
// "10G", "1.5G". K, M, G, T and P count in powers of 1024, with and without iB
// or B. A unit may have a fraction of up to three digits, if that makes whole bytes.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "PTGMKpgtmkiB")
	unit := s[len(digits):]
	whole, fraction, dot := strings.Cut(digits, ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%s is too large", s)
		}
		return 0, fmt.Errorf("%q is not a size such as 1GiB, 512MiB or 4096", s)
	}
	shift := 0
	if unit != "" && unit != "B" {
		i := strings.Index(sizeUnits, strings.ToUpper(unit[:1]))
		if rest := unit[1:]; i < 0 || rest != "" && rest != "iB" && rest != "B" {
			return 0, fmt.Errorf("%q is not a size such as 1GiB, 512MiB or 4096", s)
		}
		shift = 10 * (len(sizeUnits) - i)
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%s is too large", s)
	}
	part, err := fractionOf(fraction, shift)
	if dot && err != nil {
		return 0, fmt.Errorf("%q is not a size such as 1.5GiB: %w", s, err)
	}
	return int64(n<<shift | part), nil
}

// fractionOf returns the bytes of a decimal fraction of 1<<shift.
func fractionOf(digits string, shift int) (uint64, error) {
	if digits == "" || len(digits) > 3 {
		return 0, errors.New("a fraction has one to three digits")
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return 0, errors.New("a fraction has digits alone")
	}
	scale := uint64(1)
	for range digits {
		scale *= 10
	}
	if n <<= shift; n%scale != 0 {
		return 0, errors.New("that is no whole number of bytes")
	}
	return n / scale, nil
}

// FormatSize prints a number of bytes so that [ParseSize] returns the same, in
// the largest unit that divides it.
func FormatSize(n int64) string {
	for i := range sizeUnits {
		if shift := 10 * (len(sizeUnits) - i); n != 0 && n&(1<<shift-1) == 0 {
			return fmt.Sprintf("%d%ciB", n>>shift, sizeUnits[i])
		}
	}
	return strconv.FormatInt(n, 10)
}

// fileSize is a size in a file.
type fileSize int64

func (s *fileSize) parse(text string, _ bool) error {
	n, err := ParseSize(text)
	*s = fileSize(n)
	return err
}

// text writes a size with its unit.
func (s fileSize) text() string { return FormatSize(int64(s)) }

// fileLength is a size of what fits into memory in any case.
type fileLength int

func (s *fileLength) parse(text string, _ bool) error {
	n, err := ParseSize(text)
	*s = fileLength(n)
	return err
}

func (s fileLength) text() string { return FormatSize(int64(s)) }

// fileDuration is a time span in a file: "15s", "1m30s", or a number of seconds.
type fileDuration time.Duration

func (d *fileDuration) parse(text string, _ bool) error {
	span, err := parseDuration(text)
	*d = fileDuration(span)
	return err
}

// text writes a time span with its unit, a negative one as "off".
func (d fileDuration) text() string {
	if d < 0 {
		return "off"
	}
	return time.Duration(d).String()
}

// parseDuration parses a time span; "off" is -1.
func parseDuration(text string) (time.Duration, error) {
	if text == "off" {
		return -1, nil
	}
	span, err := time.ParseDuration(text)
	if seconds, numErr := strconv.ParseUint(text, 10, 32); numErr == nil {
		span, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || span < check.MinTime || span > check.MaxTime {
		return 0, fmt.Errorf("%q is not a time such as 15s, from 1ms to 24h", text)
	}
	return span, nil
}

// fileSecret is a secret in a file. Its errors never quote it.
type fileSecret Secret

func (s *fileSecret) parse(text string, quoted bool) error {
	if !quoted {
		return errors.New("must be text: put it into quotes")
	}
	*s = fileSecret(text)
	return nil
}

// fileBytes are bytes in a file, as hexadecimal text.
type fileBytes []byte

func (b *fileBytes) parse(text string, quoted bool) error {
	var digits fileHex
	_ = digits.parse(text, quoted)
	data, err := hex.DecodeString(string(digits))
	if err != nil {
		return errors.New("must be bytes as hexadecimal digits")
	}
	*b = data
	return nil
}

func (b fileBytes) text() string { return hex.EncodeToString(b) }

// fileHex is hexadecimal text, which may look like a number to YAML.
type fileHex string

func (h *fileHex) parse(text string, _ bool) error {
	*h = fileHex(strings.ToLower(strings.TrimPrefix(text, "0x")))
	return nil
}
