// SPDX-License-Identifier: Apache-2.0

package initiator_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// All algorithms, both ways, and each way of getting it wrong.
func TestCHAP(t *testing.T) {
	const secret, answer = "initiator secret", "the target secret"
	address, _ := serve(t, iscsi.Auth{
		Users:    []iscsi.Account{{User: "alice", Secret: secret}},
		Outgoing: &iscsi.Account{User: "disk", Secret: answer},
	})
	login := func(c initiator.CHAP) error {
		s, err := initiator.Dial(within(t), initiator.Options{Address: address, TargetName: diskName, CHAP: c})
		if err != nil {
			return err
		}
		return s.Logout(within(t))
	}
	for _, a := range []initiator.Algorithm{initiator.MD5, initiator.SHA1, initiator.SHA256, initiator.SHA3256} {
		one := initiator.CHAP{User: "alice", Secret: secret, Algorithms: []initiator.Algorithm{a}}
		if err := login(one); err != nil {
			t.Errorf("algorithm %d, one way: %v", a, err)
		}
		both := one
		both.TargetUser, both.TargetSecret = "disk", answer
		if err := login(both); err != nil {
			t.Errorf("algorithm %d, mutual: %v", a, err)
		}
	}
	for _, c := range []initiator.CHAP{{}, {User: "alice", Secret: "something else"}, {User: "bob", Secret: secret}} {
		var refused *initiator.LoginError
		var v *initiator.Violation
		err := login(c)
		switch {
		case c.Secret == "" && errors.As(err, &v):
			t.Errorf("no CHAP: %v", err)
		case !errors.As(err, &refused) || refused.Status != pdu.AuthenticationFailure:
			t.Errorf("CHAP %+v: %v, want status 0x0201", c, err)
		}
	}
	wrong := initiator.CHAP{User: "alice", Secret: secret, TargetSecret: "not the target's"}
	if err := login(wrong); err == nil || !strings.Contains(err.Error(), "CHAP response is wrong") {
		t.Errorf("a target with a wrong secret: %v", err)
	}
	wrong = initiator.CHAP{User: "alice", Secret: secret, TargetUser: "tape", TargetSecret: answer}
	if err := login(wrong); err == nil || !strings.Contains(err.Error(), `authenticated as "disk"`) {
		t.Errorf("a target with another name: %v", err)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for want, o := range map[string]initiator.Options{
		"no address":      {},
		"no target name":  {Address: "x"},
		"both user":       {Address: "x", Discovery: true, CHAP: initiator.CHAP{User: "u"}},
		"mutual CHAP":     {Address: "x", Discovery: true, CHAP: initiator.CHAP{TargetSecret: "s"}},
		"security stage":  {Address: "x", Discovery: true, OperationalFirst: true, CHAP: initiator.CHAP{User: "u", Secret: "s"}},
		"header can say":  {Address: "x", Discovery: true, MaxRecvDataSegmentLength: 1 << 24},
		"missing port":    {Address: "x", Discovery: true},
		"can't connect: ": {Address: "x", Discovery: true},
	} {
		if _, err := initiator.Dial(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Dial() = %v, want %q", err, want)
		}
	}
}
