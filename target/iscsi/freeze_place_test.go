// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/socket"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// moment is what there was when a session was frozen.
type moment struct {
	conn *ConnectionState
	sess *SessionState // empty during login
	in   *span         // the part of a PDU of the client that the cut is in; nil between two PDUs
	out  *span         // likewise of the target, as far as the kernel took its bytes
}

// place is a kind of position in the life of a session.
type place struct {
	name string
	out  bool // in the target's stream, not in the client's
	slow bool // the kernel's buffers are small, and the client does not read
	chap bool // only with CHAP
	// where returns the first and the last position in a span that are there;
	// the position is the number of bytes before the cut.
	where func(s *span) (first, last int, ok bool)
	// hit reports whether the state that was moved is that of such a position.
	hit func(m *moment) bool
}

// within returns all positions inside a span that the client's PDU and part
// choose.
func within(want func(*span) bool) func(*span) (int, int, bool) {
	return func(s *span) (int, int, bool) { return s.from + 1, s.to - 1, want(s) && s.to-s.from > 1 }
}

// before returns the position in front of a PDU.
func before(want func(pdu.PDU) bool) func(*span) (int, int, bool) {
	return func(s *span) (int, int, bool) { return s.from, s.from, s.part == inBHS && s.from > 0 && want(s.pdu) }
}

// as is a condition on PDUs of one type.
func as[P pdu.PDU](cond func(P) bool) func(pdu.PDU) bool {
	return func(p pdu.PDU) bool { q, ok := p.(P); return ok && cond(q) }
}

// isA is the condition that a PDU is of a type.
func isA[P pdu.PDU](p pdu.PDU) bool {
	_, ok := p.(P)
	return ok
}

// spanOf is the condition that a span is of such a PDU.
func spanOf(cond func(pdu.PDU) bool) func(*span) bool {
	return func(s *span) bool { return cond(s.pdu) }
}

func isLogin(p pdu.PDU) bool { return isA[*pdu.LoginRequest](p) || isA[*pdu.LoginResponse](p) }

// partOf is the condition that a span is such a part of a PDU of full feature phase.
func partOf(what part, shortest, longest int) func(*span) bool {
	return func(s *span) bool {
		n := s.to - s.from
		return s.part == what && !isLogin(s.pdu) && n >= shortest && n <= longest
	}
}

// places returns every kind of position.
func places() []place {
	const much = 1 << 30
	in := func(s *span, want func(*span) bool) bool { return s != nil && want(s) }
	inPart := func(name string, want func(*span) bool) place {
		return place{name: "request: " + name, where: within(want), hit: func(m *moment) bool { return in(m.in, want) }}
	}
	outPart := func(name string, want func(*span) bool) place {
		return place{name: "response: " + name, out: true, where: within(want),
			hit: func(m *moment) bool { return in(m.out, want) && len(m.conn.Out) > 0 }}
	}
	solicited := func(sn uint32) func(pdu.PDU) bool {
		return as(func(p *pdu.DataOut) bool { return p.TargetTransferTag != pdu.ReservedTag && p.DataSN == sn })
	}
	open := func(sn uint32) func(*moment) bool {
		return func(m *moment) bool {
			for _, t := range m.sess.Tasks {
				if m.in == nil && len(t.R2Ts) > 0 && t.R2Ts[0].DataSN == sn {
					return true
				}
			}
			return false
		}
	}
	dataIn := spanOf(isA[*pdu.DataIn])
	return []place{
		{name: "between two login requests", where: before(isLogin), hit: func(m *moment) bool {
			return m.conn.Login != nil && m.conn.Login.Started && m.in == nil
		}},
		{name: "login request", where: within(spanOf(isLogin)), hit: func(m *moment) bool { return m.conn.Login != nil && m.in != nil }},
		{name: "between the parts of a login request", where: before(as(func(p *pdu.LoginRequest) bool { return p.Transit && p.NSG == pdu.FullFeaturePhase })),
			hit: func(m *moment) bool { return m.conn.Login != nil && len(m.conn.Login.Text) > 0 }},
		{name: "CHAP challenge sent", chap: true, where: within(spanOf(as(func(p *pdu.LoginRequest) bool { return p.CSG == pdu.SecurityNegotiation && p.Transit }))),
			hit: func(m *moment) bool { return m.conn.Login != nil && m.conn.Login.CHAP.Challenge != nil }},
		{name: "CHAP done", chap: true, where: within(spanOf(as(func(p *pdu.LoginRequest) bool { return p.CSG == pdu.LoginOperationalNegotiation }))),
			hit: func(m *moment) bool { return m.conn.Login != nil && m.conn.Login.Verified }},
		{name: "text", where: within(spanOf(as(func(p *pdu.TextRequest) bool { return !p.Continue }))),
			hit: func(m *moment) bool { return m.sess.Text.Open && len(m.sess.Text.In) > 0 }},
		inPart("BHS", partOf(inBHS, 0, much)),
		inPart("header digest", partOf(inHeaderDigest, 0, much)),
		inPart("data segment", partOf(inData, 0, bulkThreshold)),
		inPart("long data segment", partOf(inData, bulkThreshold+1, much)),
		inPart("padding", partOf(inPadding, 0, much)),
		inPart("data digest", partOf(inDataDigest, 0, much)),
		inPart("digest of a long data segment", func(s *span) bool {
			p, ok := s.pdu.(*pdu.DataOut)
			return ok && s.part == inDataDigest && p.DataLength > bulkThreshold
		}),
		{name: "between R2T and Data-Out", where: before(solicited(0)), hit: open(0)},
		{name: "between two Data-Outs", where: before(solicited(1)), hit: open(1)},
		{name: "behind a CmdSN gap", where: before(as(func(p *pdu.SCSICommand) bool { return p.CmdSN == 3 })),
			hit: func(m *moment) bool { return len(m.sess.Pending) == 2 }},

		outPart("login", spanOf(isA[*pdu.LoginResponse])),
		outPart("CHAP", spanOf(as(func(p *pdu.LoginResponse) bool { return p.CSG == pdu.SecurityNegotiation }))),
		outPart("text", spanOf(isA[*pdu.TextResponse])),
		outPart("R2T", spanOf(isA[*pdu.R2T])),
		outPart("Data-In", dataIn),
		outPart("logout", spanOf(isA[*pdu.LogoutResponse])),
		outPart("BHS", partOf(inBHS, 0, much)),
		outPart("header digest", partOf(inHeaderDigest, 0, much)),
		outPart("data segment", partOf(inData, 0, much)),
		outPart("padding", partOf(inPadding, 0, much)),
		outPart("data digest", partOf(inDataDigest, 0, much)),
		{name: "response: between two Data-Ins", out: true, where: before(as(func(p *pdu.DataIn) bool { return p.DataSN > 0 })),
			hit: func(m *moment) bool { return m.out == nil && len(m.conn.Out) > 0 }},

		{name: "mid Data-In, the client does not read", slow: true,
			where: before(isA[*pdu.LogoutRequest]),
			hit:   func(m *moment) bool { return len(m.conn.Out) > 0 && (m.out == nil || dataIn(m.out)) }},
	}
}

// interval is a range of positions.
type interval struct{ first, last int }

// positions returns where in a stream a place is.
func (p *place) positions(spans []span) []interval {
	var list []interval
	for i := range spans {
		if first, last, ok := p.where(&spans[i]); ok {
			list = append(list, interval{first, last})
		}
	}
	return list
}

// spanAt returns the part of a PDU that a cut is in, nil for between two PDUs.
func spanAt(spans []span, at int) *span {
	for i := range spans {
		if s := &spans[i]; at >= s.from && at < s.to {
			if at == s.begin {
				return nil
			}
			return s
		}
	}
	return nil
}

// gate lets so many bytes out to a client and no more, as if the client had
// closed its window there.
type gate struct {
	mu      sync.Mutex // protects what follows
	limit   int        // bytes; below 0: none
	written int
	reached chan struct{} // closed when the target wanted to send more
}

func newGate(limit int) *gate { return &gate{limit: limit, reached: make(chan struct{})} }

// set moves the limit.
func (g *gate) set(limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = limit
}

// sent is how many bytes the kernel has taken.
func (g *gate) sent() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.written
}

func (g *gate) writev(to *socket.Socket, iov []unix.Iovec) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit >= 0 {
		if iov = clipIOV(iov, g.limit-g.written); len(iov) == 0 {
			select {
			case <-g.reached:
			default:
				close(g.reached)
			}
			return 0, unix.EAGAIN
		}
	}
	n, err := to.Writev(iov)
	g.written += max(n, 0)
	return n, err
}

// clipIOV returns the first n bytes of what iov names.
func clipIOV(iov []unix.Iovec, n int) []unix.Iovec {
	var clipped []unix.Iovec
	for _, v := range iov {
		if n <= 0 {
			break
		}
		v.Len = min(v.Len, uint64(n))
		n -= int(v.Len)
		clipped = append(clipped, v)
	}
	return clipped
}
