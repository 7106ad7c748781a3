// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// echo answers each key with its value, so often.
type echo int

func (e echo) answer(pairs []pdu.Pair) (out []byte) {
	for range e {
		for _, p := range pairs {
			out = pdu.AppendText(out, p)
		}
	}
	return out
}

// negotiation is a text negotiation without a connection.
type negotiation struct {
	*testing.T
	exchange
	tag uint32
}

func newNegotiation(t *testing.T) *negotiation {
	n := &negotiation{T: t}
	n.account = account.New(1<<30, 10).Open("test")
	t.Cleanup(func() {
		n.begin(pdu.ReservedTag)
		if used := n.account.Used(); used != 0 {
			t.Errorf("%d bytes are on the account in the end", used)
		}
		n.account.Close()
	})
	return n
}

// ask sends text with a request, and returns what is answered.
func (n *negotiation) ask(req pdu.TextRequest, text string, limit int) (string, pdu.TextResponse) {
	n.Helper()
	if !n.takes(&req) {
		n.Fatalf("%+v was not taken", req)
	}
	part, final, fault := n.step(&req, []byte(text), limit, echo(2))
	if fault != 0 {
		n.Fatalf("%+v: fault %#x", req, fault)
	}
	ttt := uint32(pdu.ReservedTag)
	if !final {
		n.tag++
		ttt = n.tag
	}
	p := n.response(len(part), final, ttt)
	n.settle()
	return string(part), p
}

// fails sends text that is rejected.
func (n *negotiation) fails(what string, req pdu.TextRequest, text string, want pdu.RejectReason) {
	n.Helper()
	if !n.takes(&req) {
		n.Fatalf("%s: not taken", what)
	}
	if _, _, fault := n.step(&req, []byte(text), 1<<20, echo(1)); fault != want {
		n.Errorf("%s: fault %#x, want %#x", what, fault, want)
	}
}

// TestExchange asks in two parts, and fetches the answer in parts; in between another process goes on.
func TestExchange(t *testing.T) {
	n := newNegotiation(t)
	text, p := n.ask(pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, Continue: true}, "A=1\x00B=", 100)
	if text != "" || p.Final || p.TargetTransferTag == pdu.ReservedTag || n.account.Used() == 0 {
		t.Fatalf("after the first part: %q, %+v, %d bytes on the account", text, p, n.account.Used())
	}
	if n.takes(&pdu.TextRequest{InitiatorTaskTag: 2, TargetTransferTag: p.TargetTransferTag}) || n.takes(&pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: 99}) {
		t.Error("a request of another exchange was taken")
	}
	next := newNegotiation(t)
	next.restore(n.textExchange)
	var all bytes.Buffer
	more := "2\x00"
	for range 4 {
		text, p = next.ask(pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: p.TargetTransferTag, Final: true}, more, 6)
		if all.WriteString(text); p.Final {
			break
		}
		more = ""
	}
	if want := strings.Repeat("A=1\x00B=2\x00", 2); all.String() != want || !p.Final || p.TargetTransferTag != pdu.ReservedTag {
		t.Errorf("the answer is %q, %+v; want %q", all.String(), p, want)
	}
	if next.account.Used() != 0 || next.takes(&pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: next.tag}) {
		t.Error("it is not over when all has been sent")
	}
}

// TestExchangeFaults has what is rejected.
func TestExchangeFaults(t *testing.T) {
	n := newNegotiation(t)
	begin := pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, Final: true}
	n.fails("a key twice", begin, "A=1\x00A=2\x00", pdu.ProtocolError)
	n.fails("no pairs", begin, "A\x00", pdu.ProtocolError)
	n.fails("more than there may be", begin, strings.Repeat("x", maxText+1), pdu.ProtocolError)
	if _, p := n.ask(begin, "A=1\x00", 3); !p.Continue {
		t.Fatalf("%+v, want a part of the answer", p)
	}
	n.fails("text while the answer is fetched", pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: n.tag}, "B=1\x00", pdu.ProtocolError)
	small := account.New(1<<10, 1)
	n.begin(pdu.ReservedTag)
	n.account.Close()
	n.account = small.Open("short of memory")
	other := small.Open("who has all")
	defer other.Close()
	held := int64(0)
	for other.Admit(512) {
		held += 512
	}
	defer func() { other.Release(held) }()
	n.fails("no memory", pdu.TextRequest{InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, Continue: true}, strings.Repeat("x", maxText), pdu.LongOperationReject)
}
