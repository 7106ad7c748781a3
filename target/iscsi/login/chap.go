// SPDX-License-Identifier: Apache-2.0

package login

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Auth says how initiators prove who they are. The zero Auth asks nothing.
type Auth struct {
	Users      []Account // whom initiators may log in as; none: no authentication
	Outgoing   *Account  // how the target proves itself to an initiator that asks (mutual CHAP)
	Algorithms []string  // of "MD5", "SHA1", "SHA256", "SHA3-256"; none: all of them
}

// Account is a CHAP name and secret.
type Account struct {
	User   string
	Secret string

	// Binds reports whether an initiator of that name may use the account. nil: any may.
	Binds func(initiator string) bool
}

// admits is 1 for an initiator that may use the account, or else 0.
func (a *Account) admits(initiator string) int {
	if a.Binds == nil || a.Binds(initiator) {
		return 1
	}
	return 0
}

// Required reports whether an initiator must authenticate.
func (a *Auth) Required() bool { return len(a.Users) > 0 }

// chapAlgorithm is a hash that CHAP may use, by its number in the registry of
// PPP authentication algorithms (RFC 7143 12.1.3).
type chapAlgorithm struct {
	number int
	name   string
	new    func() hash.Hash
}

var chapAlgorithms = []chapAlgorithm{
	{5, "MD5", md5.New},
	{6, "SHA1", sha1.New},
	{7, "SHA256", sha256.New},
	{8, "SHA3-256", func() hash.Hash { return sha3.New256() }},
}

// chapState is where a CHAP exchange stands; plain data, as a login may move
// to another process in the middle of it.
type chapState struct {
	Algorithm int    `cbor:"1,keyasint"` // 0 before CHAP_A
	ID        byte   `cbor:"2,keyasint"`
	Challenge []byte `cbor:"3,keyasint"`
}

const (
	maxChallenge    = 1024 // bytes (RFC 7143 12.1.3)
	challengeLength = 32
)

// failedAuth is an authentication that failed; what it says is for the log, the
// initiator only learns the status.
func failedAuth(format string, args ...any) error {
	return Errorf(pdu.AuthenticationFailure, format, args...)
}

// offer answers CHAP_A with the first algorithm that both sides know and a
// fresh challenge.
func (s *chapState) offer(value string, auth *Auth, random io.Reader) ([]pdu.Pair, error) {
	for v := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(v)
		if err != nil {
			continue
		}
		a := findAlgorithm(n)
		if a == nil || !auth.permits(a.name) {
			continue
		}
		fresh := make([]byte, challengeLength+1)
		if _, err := io.ReadFull(random, fresh); err != nil {
			return nil, fmt.Errorf("can't make a challenge: %w", err)
		}
		s.Algorithm, s.ID, s.Challenge = n, fresh[0], fresh[1:]
		return []pdu.Pair{
			{Key: "CHAP_A", Value: strconv.Itoa(n)},
			{Key: "CHAP_I", Value: strconv.Itoa(int(s.ID))},
			{Key: "CHAP_C", Value: "0x" + hex.EncodeToString(s.Challenge)},
		}, nil
	}
	return nil, failedAuth("no CHAP algorithm in common: the initiator offers %q", value)
}

func (a *Auth) permits(name string) bool {
	if len(a.Algorithms) == 0 {
		return true
	}
	for _, p := range a.Algorithms {
		if strings.EqualFold(p, name) {
			return true
		}
	}
	return false
}

func findAlgorithm(number int) *chapAlgorithm {
	for i := range chapAlgorithms {
		if chapAlgorithms[i].number == number {
			return &chapAlgorithms[i]
		}
	}
	return nil
}

// response computes the CHAP response (RFC 1994 4.1).
func (s *chapState) response(id byte, secret string, challenge []byte) []byte {
	h := findAlgorithm(s.Algorithm).new()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// verify checks the initiator's CHAP_N and CHAP_R, and answers CHAP_I and
// CHAP_C if the initiator wants the target to prove itself too. The challenge
// is used up either way. An account that is not for the initiator is answered, and
// takes as long, as one with another secret.
func (s *chapState) verify(keys map[string]string, auth *Auth, initiator string) ([]pdu.Pair, error) {
	challenge := s.Challenge
	s.Challenge = nil
	if challenge == nil {
		return nil, failedAuth("CHAP response without a challenge")
	}
	got, err := decodeBinary(keys["CHAP_R"])
	if err != nil {
		return nil, failedAuth("CHAP_R: %v", err)
	}
	name, matched, proved := keys["CHAP_N"], 0, 0
	for i := range auth.Users {
		u := &auth.Users[i]
		want := s.response(s.ID, u.Secret, challenge)
		right := subtle.ConstantTimeCompare([]byte(u.User), []byte(name)) & subtle.ConstantTimeCompare(want, got)
		proved |= right
		matched |= right & u.admits(initiator)
	}
	switch {
	case proved == 1 && matched != 1:
		return nil, failedAuth("account %q is not for initiators of this name", name)
	case matched != 1:
		return nil, failedAuth("wrong CHAP name or secret for %q", name)
	}
	return s.prove(keys, auth, challenge)
}

// prove answers the initiator's challenge, if there is one.
func (s *chapState) prove(keys map[string]string, auth *Auth, own []byte) ([]pdu.Pair, error) {
	id, hasID := keys["CHAP_I"]
	c, hasC := keys["CHAP_C"]
	switch {
	case !hasID && !hasC:
		return nil, nil
	case !hasID || !hasC:
		return nil, failedAuth("one of CHAP_I and CHAP_C is missing")
	case auth.Outgoing == nil:
		return nil, failedAuth("the initiator wants the target to authenticate, which has no outgoing account")
	}
	n, ok := number(id, 0, 255)
	if !ok {
		return nil, failedAuth("CHAP_I is no number up to 255")
	}
	theirs, err := decodeBinary(c)
	if err != nil {
		return nil, failedAuth("CHAP_C: %v", err)
	}
	// RFC 7143 12.1.3: a challenge sent back to its author proves nothing.
	if bytes.Equal(theirs, own) {
		return nil, failedAuth("the initiator sent the target's own challenge back")
	}
	return []pdu.Pair{
		{Key: "CHAP_N", Value: auth.Outgoing.User},
		{Key: "CHAP_R", Value: "0x" + hex.EncodeToString(s.response(byte(n), auth.Outgoing.Secret, theirs))},
	}, nil
}

// decodeBinary decodes a binary value, hexadecimal or base64 (RFC 7143 6.1).
func decodeBinary(s string) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		s = s[2:]
		if len(s)%2 == 1 {
			s = "0" + s
		}
		b, err = hex.DecodeString(s)
	case strings.HasPrefix(s, "0b"), strings.HasPrefix(s, "0B"):
		b, err = base64.StdEncoding.DecodeString(s[2:])
	default:
		return nil, errors.New("not a binary value")
	}
	if err != nil {
		return nil, errors.New("malformed binary value")
	}
	if len(b) == 0 || len(b) > maxChallenge {
		return nil, fmt.Errorf("%d bytes, allowed are 1 to %d", len(b), maxChallenge)
	}
	return b, nil
}
