// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A fake is a target that does what a test tells it, right or wrong. It
// negotiates no digests.
type fake struct {
	conn net.Conn
	seq  pdu.Sequence // of the next response
	// wrong may change a login response before it is sent.
	wrong func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair
}

// newFake listens, and runs script on the first connection after a login. What
// script returns but io.EOF fails the test.
func newFake(t *testing.T, wrong func(*pdu.LoginResponse, []pdu.Pair) []pdu.Pair, script func(f *fake) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a test that hangs shows below
		f := &fake{conn: c, seq: pdu.Sequence{StatSN: 100, MaxCmdSN: 32}, wrong: wrong}
		if err = f.login(); err == nil {
			err = script(f)
		}
		ended <- err
	}()
	t.Cleanup(func() {
		l.Close()
		// The initiator closes the connection upon a violation, at any point.
		if err := <-ended; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isReset(err) {
			t.Errorf("fake target: %v", err)
		}
	})
	return l.Addr().String()
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "broken pipe")
}

// read returns the next PDU, and counts its CmdSN.
func (f *fake) read() (pdu.PDU, []byte, error) {
	var h pdu.BHS
	if _, err := io.ReadFull(f.conn, h[:]); err != nil {
		return nil, nil, err
	}
	data := make([]byte, pdu.Padded(h.DataSegmentLength()))
	if _, err := io.ReadFull(f.conn, data); err != nil {
		return nil, nil, err
	}
	p := pdu.New(h.Opcode())
	p.Decode(&h)
	if !h.Immediate() && h.Opcode() != pdu.OpDataOut {
		f.seq.ExpCmdSN++
		f.seq.MaxCmdSN++
	}
	return p, data[:h.DataSegmentLength()], nil
}

// write sends p with data, and corrupt may change the header.
func (f *fake) write(p pdu.PDU, data []byte, corrupt func(h *pdu.BHS)) error {
	raw := (&Wire{}).encode(nil, p, data, Fault{})
	if corrupt != nil {
		corrupt((*pdu.BHS)(raw))
	}
	_, err := f.conn.Write(raw)
	return err
}

// status returns the sequence numbers of a response that uses one up.
func (f *fake) status() pdu.Sequence {
	s := f.seq
	f.seq.StatSN++
	return s
}

// login answers every offer with itself.
func (f *fake) login() error {
	for {
		p, data, err := f.read()
		if err != nil {
			return err
		}
		req, ok := p.(*pdu.LoginRequest)
		if !ok {
			return errors.New("not a login request: " + p.String())
		}
		pairs, err := pdu.ParseText(data)
		if err != nil {
			return err
		}
		resp := &pdu.LoginResponse{Transit: req.Transit, CSG: req.CSG, NSG: req.NSG, ISID: req.ISID, TSIH: req.TSIH,
			InitiatorTaskTag: req.InitiatorTaskTag, Sequence: f.status()}
		var answer []pdu.Pair
		for _, pair := range pairs {
			switch pair.Key {
			case "InitiatorName", "SessionType":
			case "TargetName":
				answer = append(answer, pdu.Pair{Key: "TargetPortalGroupTag", Value: "1"})
			case "MaxRecvDataSegmentLength":
				answer = append(answer, pdu.Pair{Key: pair.Key, Value: "8192"})
			default:
				answer = append(answer, pair)
			}
		}
		last := req.Transit && req.NSG == pdu.FullFeaturePhase
		if last && resp.TSIH == 0 {
			resp.TSIH = 1
		}
		if f.wrong != nil {
			answer = f.wrong(resp, answer)
		}
		if err := f.write(resp, pdu.AppendText(nil, answer...), nil); err != nil || last {
			return err
		}
	}
}

func fakeDial(t *testing.T, address string) (*Session, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return Dial(ctx, Options{Address: address, TargetName: "iqn.2026-11.test:fake", MaxBurstLength: 4096, FirstBurstLength: 512, InitiatorName: "iqn.2026-11.test:i"})
}

// Each login that a target gets wrong is refused for the right reason.
func TestLoginViolations(t *testing.T) {
	set := func(key, value string) func(*pdu.LoginResponse, []pdu.Pair) []pdu.Pair {
		return func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair {
			for i := range pairs {
				if pairs[i].Key == key {
					pairs[i].Value = value
				}
			}
			return pairs
		}
	}
	change := func(f func(p *pdu.LoginResponse)) func(*pdu.LoginResponse, []pdu.Pair) []pdu.Pair {
		return func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair {
			f(p)
			return pairs
		}
	}
	for _, c := range []struct {
		want  string
		wrong func(*pdu.LoginResponse, []pdu.Pair) []pdu.Pair
	}{
		{"chose AuthMethod=CHAP", set("AuthMethod", "CHAP")},
		{"HeaderDigest=CRC32C chosen", set("HeaderDigest", "CRC32C")},
		{"MaxBurstLength=8192 does not follow", set("MaxBurstLength", "8192")},
		{"MaxBurstLength=100 is not a number from", set("MaxBurstLength", "100")},
		{"ImmediateData=Yes is no result", set("ImmediateData", "Yes")},
		{"InitialR2T=Maybe is no result", set("InitialR2T", "Maybe")},
		{"DataPDUInOrder=No is no result", set("DataPDUInOrder", "No")},
		{"ErrorRecoveryLevel=2 does not follow", set("ErrorRecoveryLevel", "2")},
		{"MaxRecvDataSegmentLength=0 is not", set("MaxRecvDataSegmentLength", "0")},
		{"TargetPortalGroupTag=x is no", set("TargetPortalGroupTag", "x")},
		{"login ended while", func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair {
			if p.CSG == pdu.LoginOperationalNegotiation {
				pairs = append(pairs, pdu.Pair{Key: "X-unknown", Value: "1"})
			}
			return pairs
		}},
		{"sent twice", func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair { return append(pairs, pairs...) }},
		{"did not answer InitialR2T", func(p *pdu.LoginResponse, pairs []pdu.Pair) []pdu.Pair {
			var kept []pdu.Pair
			for _, pair := range pairs {
				if pair.Key != "InitialR2T" {
					kept = append(kept, pair)
				}
			}
			return kept
		}},
		{"StatSN 100, want 101", change(func(p *pdu.LoginResponse) { p.StatSN = 100 })},
		{"ended without a TSIH", change(func(p *pdu.LoginResponse) { p.TSIH = 0 })},
		{"TSIH 9 before", change(func(p *pdu.LoginResponse) { p.TSIH = 9 })},
		{"ISID", change(func(p *pdu.LoginResponse) { p.ISID[5]++ })},
		{"task tag", change(func(p *pdu.LoginResponse) { p.InitiatorTaskTag++ })},
		{"stage", change(func(p *pdu.LoginResponse) { p.CSG ^= 1 })},
		{"MaxCmdSN before", change(func(p *pdu.LoginResponse) { p.MaxCmdSN = p.ExpCmdSN - 2 })},
		{"does not advance", change(func(p *pdu.LoginResponse) { p.ExpCmdSN++ })},
		{"next stage", change(func(p *pdu.LoginResponse) { p.Transit = false })},
		{"version", change(func(p *pdu.LoginResponse) { p.VersionActive = 1 })},
	} {
		t.Run(c.want, func(t *testing.T) {
			s, err := fakeDial(t, newFake(t, c.wrong, func(*fake) error { return nil }))
			if err == nil {
				s.Close()
			}
			wantViolation(t, err, c.want)
		})
	}
}

func wantViolation(t *testing.T, err error, rule string) {
	t.Helper()
	var v *Violation
	if !errors.As(err, &v) || !strings.Contains(v.Error(), rule) {
		t.Errorf("error %v, want a violation with %q", err, rule)
	}
}
