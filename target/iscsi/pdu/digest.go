// SPDX-License-Identifier: Apache-2.0

package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Digest is the CRC32C of what was added to it (RFC 7143 13.1); the zero
// Digest has seen nothing.
type Digest uint32

// Add returns the digest of everything before and b.
func (d Digest) Add(b []byte) Digest {
	return Digest(crc32.Update(uint32(d), castagnoli, b))
}

// Put writes the digest as it goes over the wire: the CRC's least significant
// byte first.
func (d Digest) Put(b []byte) { binary.LittleEndian.PutUint32(b, uint32(d)) }

// Matches reports whether the four bytes from the wire are this digest.
func (d Digest) Matches(b []byte) bool { return binary.LittleEndian.Uint32(b) == uint32(d) }
