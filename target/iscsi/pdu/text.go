// SPDX-License-Identifier: Apache-2.0

package pdu

import (
	"bytes"
	"fmt"
)

// Pair is one key=value of a login or text negotiation (RFC 7143 6.1).
type Pair struct {
	Key, Value string
}

// Limits of the text format (RFC 7143 6.1).
const (
	MaxKeyLen   = 63  // bytes
	MaxValueLen = 255 // bytes, unless the key says otherwise
	// MaxLongValueLen bounds the keys whose values may be longer: CHAP_C and
	// CHAP_R hold up to 1,024 binary bytes (RFC 7143 12.1.3), which is 2,050
	// characters in hexadecimal.
	MaxLongValueLen = 2050
	// MaxPairs bounds a whole negotiation. RFC 7143 has 33 keys, and initiators have some
	// of their own; the work of a negotiation grows faster than the number of its keys.
	MaxPairs = 128
)

// ParseText splits the data segment of a text or login PDU, all parts of a
// continued one joined. It checks form only: key syntax, lengths, that every pair ends with a
// NUL byte, and that there are no more than MaxPairs.
func ParseText(data []byte) ([]Pair, error) {
	var pairs []Pair
	for len(data) > 0 {
		item, rest, ended := bytes.Cut(data, []byte{0})
		data = rest
		if len(item) == 0 {
			continue // stray NULs are padding that some initiators count as data
		}
		if !ended {
			return nil, fmt.Errorf("text %q does not end with NUL", clip(item))
		}
		key, value, ok := bytes.Cut(item, []byte{'='})
		switch {
		case len(pairs) == MaxPairs:
			return nil, fmt.Errorf("more than %d keys", MaxPairs)
		case !ok:
			return nil, fmt.Errorf("text %q has no '='", clip(item))
		case !validKey(key):
			return nil, fmt.Errorf("bad key name %q", clip(key))
		case len(value) > MaxLongValueLen:
			return nil, fmt.Errorf("value of key %s has %d bytes, the limit is %d", key, len(value), MaxLongValueLen)
		}
		pairs = append(pairs, Pair{string(key), string(value)})
	}
	return pairs, nil
}

// AppendText appends pairs in wire format to b.
func AppendText(b []byte, pairs ...Pair) []byte {
	for _, p := range pairs {
		b = append(b, p.Key...)
		b = append(b, '=')
		b = append(b, p.Value...)
		b = append(b, 0)
	}
	return b
}

// validKey checks a key name: a letter, then letters, digits and the signs
// that RFC 7143 6.1 allows.
func validKey(key []byte) bool {
	if len(key) == 0 || len(key) > MaxKeyLen {
		return false
	}
	for i, c := range key {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case i > 0 && (c >= '0' && c <= '9' || bytes.IndexByte([]byte(".-+@_#/:"), c) >= 0):
		default:
			return false
		}
	}
	return true
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }
