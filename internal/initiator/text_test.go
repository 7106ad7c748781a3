// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// An answer in two parts is asked for and put together; a name or address cut
// in two is no matter.
func TestTextInParts(t *testing.T) {
	const answer = "TargetName=iqn.2026-11.test:a\x00TargetAddress=192.0.2.1:3260,1\x00TargetAddress=[2001:db8::1]:3260,2\x00TargetName=iqn.2026-11.test:b\x00"
	s, ctx := script(t, Options{}, func(f *fake) error {
		for i, part := range []string{answer[:40], answer[40:]} {
			p, data, err := f.read()
			if err != nil {
				return err
			}
			req, ok := p.(*pdu.TextRequest)
			switch {
			case !ok, i == 0 && (req.TargetTransferTag != pdu.ReservedTag || string(data) != "SendTargets=All\x00"):
				return errors.New("wrong first request: " + p.String())
			case i == 1 && (req.TargetTransferTag != 9 || len(data) > 0):
				return errors.New("wrong second request: " + p.String())
			}
			resp := &pdu.TextResponse{Continue: i == 0, Final: i == 1, InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: 9, Sequence: f.status()}
			if resp.Final {
				resp.TargetTransferTag = pdu.ReservedTag
			}
			if err := f.write(resp, []byte(part), nil); err != nil {
				return err
			}
		}
		return nil
	})
	got, err := s.SendTargets(ctx, "All")
	want := []Portal{
		{"iqn.2026-11.test:a", "192.0.2.1:3260", "1"},
		{"iqn.2026-11.test:a", "[2001:db8::1]:3260", "2"},
		{"iqn.2026-11.test:b", "", ""},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("SendTargets() = %v, %v, want %v", got, err, want)
	}
}

func TestSendTargetsViolations(t *testing.T) {
	for want, answer := range map[string]string{
		"before any TargetName":  "TargetAddress=192.0.2.1:3260,1\x00",
		"no portal group tag":    "TargetName=iqn.2026-11.test:a\x00TargetAddress=192.0.2.1:3260\x00",
		"in the answer":          "MaxBurstLength=512\x00",
		"does not end with NUL":  "TargetName=iqn",
		"no target transfer tag": "",
	} {
		s, ctx := script(t, Options{}, func(f *fake) error {
			p, _, err := f.read()
			if err != nil {
				return err
			}
			resp := &pdu.TextResponse{Final: answer != "", InitiatorTaskTag: p.(*pdu.TextRequest).InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Sequence: f.status()}
			return f.write(resp, []byte(answer), nil)
		})
		_, err := s.SendTargets(ctx, "All")
		wantViolation(t, err, want)
	}
}

// A request to negotiate is answered with an empty text request.
func TestNegotiationRequested(t *testing.T) {
	answered := make(chan struct{})
	script(t, Options{}, func(f *fake) error {
		defer close(answered)
		if err := f.write(&pdu.AsyncMessage{Event: pdu.AsyncNegotiateRequest, Parameter3: 5, Sequence: f.status()}, nil, nil); err != nil {
			return err
		}
		p, data, err := f.read()
		if req, ok := p.(*pdu.TextRequest); err == nil && (!ok || !req.Final || len(data) > 0) {
			return errors.New("not an empty text request: " + p.String())
		}
		return err
	})
	<-answered
}

// Raw bytes go out as they are, in order with everything else.
func TestSendRaw(t *testing.T) {
	got := make(chan error, 1)
	want := &pdu.SNACKRequest{Type: 1, InitiatorTaskTag: 3, TargetTransferTag: pdu.ReservedTag, BegRun: 4}
	s, _ := script(t, Options{}, func(f *fake) error {
		got <- f.expect(want)
		return nil
	})
	var h pdu.BHS
	want.Encode(&h)
	if err := s.SendRaw(1, h[:]); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := s.SendRaw(2, h[:]); err == nil || !strings.Contains(err.Error(), "connection") {
		t.Errorf("SendRaw() on no connection: %v", err)
	}
}

// A verifier whose commands get no answer gives the session up.
func TestVerifierGivesUp(t *testing.T) {
	ended := make(chan struct{})
	s, ctx := script(t, Options{}, func(*fake) error {
		<-ended
		return nil
	})
	defer close(ended)
	v := &Verifier{Session: s, Blocks: 64, BlockSize: 512, MinDepth: 4, MaxDepth: 4, MaxCommands: 10, ResponseLimit: 20 * time.Millisecond}
	if _, err := v.Run(ctx); err == nil || !strings.Contains(err.Error(), "commands ended within 20ms") {
		t.Fatalf("Run() = %v", err)
	}
}

func TestDecodeSense(t *testing.T) {
	for _, c := range []struct {
		sense []byte
		key   uint8
		code  uint16
	}{
		{[]byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 1}, 5, 0x2401},
		{[]byte{0x72, 6, 0x29, 0}, 6, 0x2900},
		{[]byte{0x70, 0, 5}, 0, 0},
		{nil, 0, 0},
	} {
		if key, code := DecodeSense(c.sense); key != c.key || code != c.code {
			t.Errorf("DecodeSense(%x) = %x, %04x, want %x, %04x", c.sense, key, code, c.key, c.code)
		}
	}
}
