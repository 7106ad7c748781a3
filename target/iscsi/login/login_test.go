// SPDX-License-Identifier: Apache-2.0

package login

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

const (
	testTarget    = "iqn.2026-11.test:disk"
	closedTarget  = "iqn.2026-11.test:closed"
	testInitiator = "iqn.2026-11.test:initiator"
	secret        = "wonderland-1865"
)

// still is a source of randomness that always says the same.
type still struct{}

func (still) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i*37 + 11)
	}
	return len(b), nil
}

// testNode has one target, and one that admits nobody; session 7 may be joined.
type testNode struct{ auth Auth }

func (n testNode) Discovery() Auth     { return n.auth }
func (n testNode) Group() uint16       { return 1 }
func (n testNode) Address() netip.Addr { return netip.MustParseAddr("192.0.2.9") }
func (n testNode) Random() io.Reader   { return still{} }
func (n testNode) Prove(string) error  { return nil }
func (n testNode) Proved(string, bool) {}

func (n testNode) Target(name string) *Target {
	if name != testTarget && name != closedTarget {
		return nil
	}
	return &Target{Alias: "a disk", Auth: n.auth, Limits: Limits{}.WithDefaults(), Offline: false}
}

func (n testNode) Admit(target string, _ Peer) error {
	if target == closedTarget {
		return Errorf(pdu.AuthorizationFailure, "nobody is")
	}
	return nil
}

func (n testNode) Joins(tsih uint16, target, initiator string, _ pdu.ISID) bool {
	return tsih == 7 && target == testTarget && initiator == testInitiator
}

func withCHAP() testNode { return testNode{Auth{Users: []Account{{User: "alice", Secret: secret}}}} }

// proof is the answer to the challenge that [still] makes.
func proof() string {
	fresh := make([]byte, 1+challengeLength)
	still{}.Read(fresh)
	return fmt.Sprintf("CHAP_R=0x%x", sha256.Sum256(slices.Concat(fresh[:1], []byte(secret), fresh[1:])))
}

// exchange is a request, and what is to come of it.
type exchange struct {
	req  pdu.LoginRequest
	keys string // separated by blanks
	want string // a status, or what the answer says
}

// show says what came of a step in the words of the tables.
func show(a Answer, err error) string {
	if err != nil {
		var e Error
		if !errors.As(err, &e) {
			return err.Error()
		}
		return fmt.Sprintf("%#04x", uint16(e.Status))
	}
	s := strings.ReplaceAll(strings.TrimSuffix(string(a.Text), "\x00"), "\x00", " ")
	if a.Response.Transit {
		s += fmt.Sprintf(" -> %d", a.Response.NSG)
	}
	if a.Complete {
		s += " complete"
	}
	return strings.TrimSpace(s)
}

func text(keys string) []byte {
	if keys == "" {
		return nil
	}
	return []byte(strings.ReplaceAll(keys, " ", "\x00") + "\x00")
}

// Each row is a login from its first request on (RFC 7143 6.3): what is sent in
// which stage, and what that leads to.
func TestLogin(t *testing.T) {
	const (
		security, operational, full = pdu.SecurityNegotiation, pdu.LoginOperationalNegotiation, pdu.FullFeaturePhase
		names                       = "InitiatorName=" + testInitiator + " TargetName=" + testTarget
		alias                       = "TargetPortalGroupTag=1 TargetAlias=a disk"
		segment                     = "MaxRecvDataSegmentLength=262144"
		challenge                   = "CHAP_A=7 CHAP_I=11 CHAP_C=0x30557a9fc4e90e33587da2c7ec11365b80a5caef14395e83a8cdf2173c6186ab"
	)
	stay := func(csg pdu.Stage) pdu.LoginRequest { return pdu.LoginRequest{CSG: csg} }
	move := func(csg, nsg pdu.Stage) pdu.LoginRequest { return pdu.LoginRequest{Transit: true, CSG: csg, NSG: nsg} }
	chap := []exchange{
		{stay(security), names + " AuthMethod=None,CHAP", alias + " AuthMethod=CHAP"},
		{stay(security), "CHAP_A=7", challenge},
	}
	for name, c := range map[string]struct {
		node testNode
		list []exchange
	}{
		"straight to full feature phase": {testNode{}, []exchange{{move(operational, full), names, alias + " " + segment + " -> 3 complete"}}},
		"every stage": {testNode{}, []exchange{
			{move(security, operational), names + " AuthMethod=None", alias + " AuthMethod=None -> 1"},
			{stay(operational), "InitialR2T=Yes", "InitialR2T=Yes " + segment},
			{move(operational, full), "ImmediateData=No", "ImmediateData=No -> 3 complete"}}},
		"from security to full feature phase": {testNode{}, []exchange{{move(security, full), names, alias + " -> 3 complete"}}},
		"a key in two parts": {testNode{}, []exchange{
			{pdu.LoginRequest{CSG: operational, Continue: true}, names + " Max", ""},
			{move(operational, full), "Connections=2", alias + " MaxConnections=2 " + segment + " -> 3 complete"}}},
		"discovery":                 {testNode{}, []exchange{{move(operational, full), "SessionType=Discovery InitiatorName=" + testInitiator, segment + " -> 3 complete"}}},
		"a further connection":      {testNode{}, []exchange{{pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, TSIH: 7}, names + " MaxConnections=2", alias + " MaxConnections=Irrelevant " + segment + " -> 3 complete"}}},
		"of no session":             {testNode{}, []exchange{{pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, TSIH: 8}, names, "0x020a"}}},
		"no target":                 {testNode{}, []exchange{{stay(operational), names + "x", "0x0203"}}},
		"a closed target":           {testNode{}, []exchange{{stay(operational), "InitiatorName=" + testInitiator + " TargetName=" + closedTarget, "0x0202"}}},
		"back to a stage":           {testNode{}, []exchange{{stay(operational), names, alias + " " + segment}, {stay(security), "", "0x0200"}}},
		"over a stage":              {testNode{}, []exchange{{move(security, operational), names, alias + " -> 1"}, {stay(security), "", "0x0200"}}},
		"to the stage that it is":   {testNode{}, []exchange{{move(operational, operational), names, "0x0200"}}},
		"to stage 2":                {testNode{}, []exchange{{move(operational, 2), names, "0x0200"}}},
		"the task tag changes":      {testNode{}, []exchange{{stay(operational), names, alias + " " + segment}, {pdu.LoginRequest{CSG: operational, InitiatorTaskTag: 1}, "", "0x0200"}}},
		"CHAP":                      {withCHAP(), append(slices.Clone(chap), exchange{move(security, operational), "CHAP_N=alice " + proof(), "-> 1"}, exchange{move(operational, full), "", segment + " -> 3 complete"})},
		"CHAP, another name":        {withCHAP(), append(slices.Clone(chap), exchange{stay(security), "CHAP_N=bob " + proof(), "0x0201"})},
		"CHAP, another proof":       {withCHAP(), append(slices.Clone(chap), exchange{stay(security), "CHAP_N=alice " + proof() + "00", "0x0201"})},
		"CHAP, no transit before":   {withCHAP(), []exchange{{move(security, operational), names + " AuthMethod=CHAP", alias + " AuthMethod=CHAP"}}},
		"CHAP left out":             {withCHAP(), []exchange{{move(operational, full), names, "0x0201"}}},
		"CHAP not offered":          {withCHAP(), []exchange{{stay(security), names + " AuthMethod=None", "0x0201"}}},
		"CHAP, proof first":         {withCHAP(), append(slices.Clone(chap[:1]), exchange{stay(security), "CHAP_N=alice " + proof(), "0x0201"})},
		"CHAP, two challenges":      {withCHAP(), append(slices.Clone(chap), exchange{stay(security), "CHAP_A=7", "0x0201"})},
		"a name with a blank":       {testNode{}, []exchange{{stay(operational), "TargetName=" + testTarget + " InitiatorName=iqn.a\u2003b", "0x0200"}}},
		"a name with a comma":       {testNode{}, []exchange{{stay(operational), "TargetName=" + testTarget + " InitiatorName=iqn.a,b", "0x0200"}}},
		"a name with a control":     {testNode{}, []exchange{{stay(operational), "SessionType=Discovery InitiatorName=iqn.a\x1b[2J", "0x0200"}}},
		"a name that is no UTF-8":   {testNode{}, []exchange{{stay(operational), "SessionType=Discovery InitiatorName=iqn.\xff\xfe", "0x0200"}}},
		"a name that grows":         {testNode{}, []exchange{{stay(operational), "SessionType=Discovery InitiatorName=" + strings.Repeat("\u023a", 111), "0x0200"}}}, // in lower case it has 333 bytes
		"an alias that is too long": {testNode{}, []exchange{{stay(operational), "SessionType=Discovery InitiatorName=" + testInitiator + " InitiatorAlias=" + strings.Repeat("a", 256), "0x0200"}}},
		"an operational key early":  {testNode{}, []exchange{{stay(security), names + " MaxBurstLength=512", "0x020b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var l Login
			for i, x := range c.list {
				data := text(x.keys)
				if x.req.Continue {
					data = data[:len(data)-1] // it breaks off within a key
				}
				if got := show(l.Step(c.node, &x.req, data)); got != x.want {
					t.Errorf("request %d: %q, want %q", i, got, x.want)
				}
			}
		})
	}
}

// A login that can't be completed yet is completed by the same request later.
func TestCompletedAgain(t *testing.T) {
	var l Login
	req := pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3}
	keys := text("InitiatorName=" + testInitiator + " TargetName=" + testTarget + " InitialR2T=Yes")
	first := show(l.Step(testNode{}, &req, keys))
	if again := show(l.Step(testNode{}, &req, keys)); again != first || !strings.HasSuffix(first, "complete") {
		t.Errorf("%q, then %q", first, again)
	}
}

// interruptible is a node that has proofs wait once.
type interruptible struct {
	testNode
	waited bool
	proved []bool
}

var errWait = errors.New("later")

func (n *interruptible) Prove(string) error {
	if !n.waited {
		n.waited = true
		return errWait
	}
	return nil
}

func (n *interruptible) Proved(_ string, ok bool) { n.proved = append(n.proved, ok) }

// A login that is interrupted before a proof goes on with the same request, in another
// process too.
func TestInterruptedProof(t *testing.T) {
	for _, moves := range []bool{false, true} {
		n := &interruptible{testNode: withCHAP()}
		l := new(Login)
		step := func(req pdu.LoginRequest, keys string) (Answer, error) { return l.Step(n, &req, text(keys)) }
		if _, err := step(pdu.LoginRequest{}, "InitiatorName="+testInitiator+" TargetName="+testTarget+" AuthMethod=CHAP"); err != nil {
			t.Fatal(err)
		}
		if _, err := step(pdu.LoginRequest{}, "CHAP_A=7"); err != nil {
			t.Fatal(err)
		}
		proof := "CHAP_N=alice " + proof()
		half := len(proof) / 2
		if _, err := l.Step(n, &pdu.LoginRequest{Continue: true}, []byte(strings.ReplaceAll(proof, " ", "\x00"))[:half]); err != nil {
			t.Fatal(err)
		}
		last := func() string {
			return show(l.Step(n, &pdu.LoginRequest{Transit: true, NSG: 1}, text(proof)[half:]))
		}
		if got := last(); got != "later" {
			t.Fatalf("%q, want an interruption", got)
		}
		if moves {
			l = moved(t, l, n)
		}
		if got := last(); got != "-> 1" || !slices.Equal(n.proved, []bool{true}) {
			t.Errorf("%q, proved %v", got, n.proved)
		}
	}
}

// Too many requests, and too long ones, end a login.
func TestBounds(t *testing.T) {
	names := text("InitiatorName=" + testInitiator + " TargetName=" + testTarget)
	req := pdu.LoginRequest{CSG: 1}
	var many Login
	_, err := many.Step(testNode{}, &req, names)
	for n := 1; err == nil; n++ {
		if _, err = many.Step(testNode{}, &req, nil); n > maxRequests {
			t.Fatalf("%d requests are answered", n)
		}
	}
	var keys Login
	for i := range 2 * pdu.MaxPairs {
		_, err := keys.Step(testNode{}, &req, append(names, fmt.Sprintf("X-%d=1\x00", i)...))
		names = nil
		if err != nil {
			if n := len(keys.Negotiation.Seen); n > pdu.MaxPairs {
				t.Errorf("%d keys are kept", n)
			}
			break
		}
	}
	if _, err := new(Login).Step(testNode{}, &req, bytes.Repeat([]byte("a=\x00"), pdu.MaxPairs+1)); err == nil || !strings.Contains(err.Error(), "more than 128 keys") {
		t.Errorf("a request with too many keys: %v", err)
	}
	var long Login
	part := pdu.LoginRequest{CSG: 1, Continue: true}
	for sent := 0; ; sent += 8192 {
		if _, err := long.Step(testNode{}, &part, make([]byte, 8192)); err != nil {
			break
		}
		if sent > maxText {
			t.Fatalf("%d bytes of one request are taken", sent)
		}
	}
}

// What an initiator has said of itself is fit to be shown, logged and handed over, whatever it is.
func TestSaid(t *testing.T) {
	for alias, want := range map[string]string{
		"caf\xe9": "caf\uFFFD", "\xff\xfe": "\uFFFD\uFFFD", "\x1b[2J": "\uFFFD[2J", "a\nb": "a\uFFFDb", "host \u00e9": "host \u00e9",
		strings.Repeat("\xff", 255): strings.Repeat("\uFFFD", 84) + "…",
	} {
		var l Login
		keys := []byte("InitiatorName=" + testInitiator + "\x00TargetName=" + testTarget + "\x00InitiatorAlias=" + alias + "\x00")
		if _, err := l.Step(testNode{}, &pdu.LoginRequest{CSG: 1}, keys); err != nil {
			t.Errorf("alias %q: %v", alias, err)
		}
		if l.Alias != want || moved(t, &l, testNode{}).Alias != want {
			t.Errorf("alias %q is %q, want %q", alias, l.Alias, want)
		}
	}
	long := strings.Repeat("\xff\n", 1000)
	for _, keys := range []string{"AuthMethod=" + long, "SessionType=" + long, "InitiatorName=" + long, "CHAP_A=" + long} {
		_, err := new(Login).Step(withCHAP(), &pdu.LoginRequest{}, []byte("InitiatorName=a\x00TargetName="+testTarget+"\x00"+keys+"\x00"))
		if err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\n") || !utf8.ValidString(err.Error()) {
			t.Errorf("%.20q: %v", keys, err)
		}
	}
}

// moved returns the login as another process goes on with it.
func moved(t *testing.T, l *Login, n Node) *Login {
	b, err := cbor.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	other := new(Login)
	if err := cbor.Unmarshal(b, other); err != nil {
		t.Fatalf("what was written can't be read: %v", err)
	}
	other.Resume(n)
	return other
}

// FuzzLogin sends any requests. A login that moves to another process before
// each of them has the same answers, and none is complete without what must come
// before.
func FuzzLogin(f *testing.F) {
	names := "InitiatorName=" + testInitiator + "\x00TargetName=" + testTarget + "\x00"
	f.Add(false, []byte(names+"\n\x87InitialR2T=Yes\x00"))
	f.Add(true, []byte("\x00"+names+"AuthMethod=CHAP\x00\n\x00CHAP_A=7\x00\n\x81CHAP_N=alice\x00"+proof()+"\x00\n\x87"))
	f.Add(false, []byte("\x44"+names+"\n\x87SessionType=Discovery\x00InitiatorAlias=\xff\x00"))
	f.Fuzz(func(t *testing.T, chap bool, b []byte) {
		node := testNode{}
		if chap {
			node = withCHAP()
		}
		var stays Login
		moves := new(Login)
		for part := range strings.SplitSeq(string(b), "\n") {
			var h pdu.BHS
			if part != "" {
				h[1], part = part[0], part[1:]
			}
			var req pdu.LoginRequest
			req.Decode(&h)
			a, err := stays.Step(node, &req, []byte(part))
			moves = moved(t, moves, node)
			other, otherErr := moves.Step(node, &req, []byte(part))
			if d := cmp.Diff(show(a, err), show(other, otherErr)); d != "" {
				t.Fatalf("%q is answered in another way after a move: %s", part, d)
			}
			if err != nil {
				return
			}
			if len(a.Text) > DefaultSegment || len(stays.Text) > maxText {
				t.Fatalf("an answer of %d bytes, %d are kept", len(a.Text), len(stays.Text))
			}
			if a.Complete && (!stays.Identified || chap && !stays.Verified) {
				t.Fatal("complete, and nobody knows who it is")
			}
		}
	})
}
