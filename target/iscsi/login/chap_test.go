// SPDX-License-Identifier: Apache-2.0

package login

import (
	"crypto/rand"
	"fmt"
	"testing"
)

// TestReflectedChallenge refuses an initiator that sends the target's own
// challenge back to have it answered.
func TestReflectedChallenge(t *testing.T) {
	auth := Auth{Users: []Account{{User: "alice", Secret: "wonderland-1865"}}, Outgoing: &Account{User: "target", Secret: "looking-glass-1871"}}
	var s chapState
	pairs, err := s.offer("5", &auth, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := decodeBinary(pairs[2].Value)
	if err != nil {
		t.Fatal(err)
	}
	answer := s.response(s.ID, "wonderland-1865", challenge)
	keys := map[string]string{"CHAP_N": "alice", "CHAP_R": fmt.Sprintf("0x%x", answer), "CHAP_I": "1", "CHAP_C": pairs[2].Value}
	if out, err := s.verify(keys, &auth, testInitiator); err == nil {
		t.Errorf("the target answered its own challenge: %v", out)
	}
}
