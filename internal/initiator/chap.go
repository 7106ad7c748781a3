// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Algorithm is a hash of CHAP as CHAP_A numbers it (RFC 7143 12.1.3 and IANA's
// PPP authentication algorithms).
type Algorithm uint8

// The algorithms.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// Digest returns the response to a challenge (RFC 1994 4.1): the hash over
// identifier, secret and challenge. It is nil for an unknown algorithm.
func (a Algorithm) Digest(id byte, secret string, challenge []byte) []byte {
	in := slices.Concat([]byte{id}, []byte(secret), challenge)
	switch a {
	case MD5:
		sum := md5.Sum(in)
		return sum[:]
	case SHA1:
		sum := sha1.Sum(in)
		return sum[:]
	case SHA256:
		sum := sha256.Sum256(in)
		return sum[:]
	case SHA3256:
		sum := sha3.Sum256(in)
		return sum[:]
	}
	return nil
}

// chapExchange is the initiator's side of one CHAP authentication.
type chapExchange struct {
	cred      CHAP
	algorithm Algorithm
	id        byte   // of our challenge
	challenge []byte // ours
}

// offer returns the pair that begins the exchange.
func (x *chapExchange) offer() pdu.Pair {
	names := make([]string, len(x.cred.Algorithms))
	for i, a := range x.cred.Algorithms {
		names[i] = strconv.Itoa(int(a))
	}
	return pdu.Pair{Key: "CHAP_A", Value: strings.Join(names, ",")}
}

// respond answers the target's CHAP_A, CHAP_I and CHAP_C.
func (x *chapExchange) respond(pairs []pdu.Pair) ([]pdu.Pair, error) {
	values, err := only(pairs, "CHAP_A", "CHAP_I", "CHAP_C")
	if err != nil {
		return nil, err
	}
	chosen, err := strconv.ParseUint(values[0], 10, 8)
	if err != nil || !slices.Contains(x.cred.Algorithms, Algorithm(chosen)) {
		return nil, violation(nil, "target chose CHAP algorithm %q, offered were %v", values[0], x.cred.Algorithms)
	}
	x.algorithm = Algorithm(chosen)
	id, err := strconv.ParseUint(values[1], 0, 8)
	if err != nil {
		return nil, violation(nil, "CHAP_I is %q, not a number below 256", values[1])
	}
	challenge, err := parseBinary(values[2])
	if err != nil {
		return nil, violation(nil, "CHAP_C is %q: %v", values[2], err)
	}
	answer := []pdu.Pair{
		{Key: "CHAP_N", Value: x.cred.User},
		{Key: "CHAP_R", Value: formatBinary(x.algorithm.Digest(byte(id), x.cred.Secret, challenge))},
	}
	if x.cred.TargetSecret == "" {
		return answer, nil
	}
	x.challenge = make([]byte, 32)
	fresh := make([]byte, 1)
	_, _ = rand.Read(x.challenge) // never fails
	_, _ = rand.Read(fresh)
	x.id = fresh[0]
	return append(answer,
		pdu.Pair{Key: "CHAP_I", Value: strconv.Itoa(int(x.id))},
		pdu.Pair{Key: "CHAP_C", Value: formatBinary(x.challenge)}), nil
}

// check verifies the target's own response.
func (x *chapExchange) check(pairs []pdu.Pair) error {
	if x.cred.TargetSecret == "" {
		if len(pairs) > 0 && strings.HasPrefix(pairs[0].Key, "CHAP_") {
			return violation(nil, "target sent %s without being asked to authenticate", pairs[0].Key)
		}
		return nil
	}
	values, err := only(pairs, "CHAP_N", "CHAP_R")
	if err != nil {
		return err
	}
	got, err := parseBinary(values[1])
	if err != nil {
		return violation(nil, "CHAP_R is %q: %v", values[1], err)
	}
	want := x.algorithm.Digest(x.id, x.cred.TargetSecret, x.challenge)
	switch {
	case subtle.ConstantTimeCompare(got, want) != 1:
		return errors.New("initiator: the target's CHAP response is wrong")
	case x.cred.TargetUser != "" && x.cred.TargetUser != values[0]:
		return fmt.Errorf("initiator: the target authenticated as %q, not as %q", values[0], x.cred.TargetUser)
	}
	return nil
}

// only returns the values of exactly these keys, each present once.
func only(pairs []pdu.Pair, keys ...string) ([]string, error) {
	values := make([]string, len(keys))
	for i, key := range keys {
		found := 0
		for _, p := range pairs {
			if p.Key == key {
				values[i] = p.Value
				found++
			}
		}
		if found != 1 {
			return nil, violation(nil, "login response has %s %d times, want once: %v", key, found, pairs)
		}
	}
	return values, nil
}

// parseBinary reads a binary value in hexadecimal or base64 (RFC 7143 6.1).
func parseBinary(s string) ([]byte, error) {
	switch prefix := strings.ToLower(s[:min(2, len(s))]); prefix {
	case "0x":
		digits := s[2:]
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		return hex.DecodeString(digits)
	case "0b":
		return base64.StdEncoding.DecodeString(s[2:])
	}
	return nil, errors.New("neither hexadecimal nor base64")
}

func formatBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// randomISID returns an ISID of the random type.
func randomISID() pdu.ISID {
	var id pdu.ISID
	_, _ = rand.Read(id[:]) // never fails
	id[0] = 0x80
	return id
}
