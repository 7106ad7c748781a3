// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestSendTargetsRepeated asks for all targets many times in one text exchange, and asks again
// without fetching the answer.
func TestSendTargetsRepeated(t *testing.T) {
	const rounds = 300
	var many strings.Builder
	for i := range 50 {
		fmt.Fprintf(&many, "  - {name: \"%s-%d\"}\n", Target, i)
	}
	for _, kind := range []struct{ name, target string }{{"discovery", ""}, {"normal", Target}} {
		t.Run(kind.name, func(t *testing.T) {
			d := Start(t, gotgtd, Config("")+many.String())
			c := d.Dial(t)
			if err := c.Login(Initiator, kind.target, "MaxRecvDataSegmentLength=512"); err != nil {
				t.Fatal(err)
			}
			// The first rounds bring the heap to where the collector keeps it.
			for range rounds {
				repeatedly(t, c, kind.target == "")
			}
			before := d.RSS(t)
			d.ResetPeak(t)
			for range 3 * rounds {
				repeatedly(t, c, kind.target == "")
			}
			grown := d.PeakRSS(t) - before
			Figure(t, "%d requests with %d keys each: RSS +%s", 3*rounds, 3*manyKeys, MiB(grown))
			if grown > 4<<20 {
				t.Errorf("RSS has grown by %s", MiB(grown))
			}
		})
	}
}

// manyKeys is how many keys are in each of three parts of a request.
const manyKeys = 512

// repeatedly makes one request of three parts that has one key many times.
func repeatedly(t *testing.T, c *Client, fetch bool) {
	t.Helper()
	repeated := bytes.Repeat(Text("SendTargets=All"), manyKeys)
	tag := uint32(NoTag)
	for part := range 3 {
		request := c.TextPDU(tag, repeated)
		if part < 2 {
			request.Header[1] = 0x40 // it goes on
		}
		if err := c.Send(request); err != nil {
			t.Fatal(err)
		}
		p, err := c.Receive()
		switch {
		case err != nil:
			t.Fatal(err)
		case part < 2 && p.Opcode() != TextResp:
			t.Fatalf("part %d: PDU %#x", part, p.Opcode())
		case part == 2 && p.Opcode() != Reject:
			t.Fatalf("a key that is repeated %d times: PDU %#x, want a Reject", 3*manyKeys, p.Opcode())
		}
		tag = p.Get(20)
	}
	if fetch {
		unfetched(t, c)
	}
}

// unfetched asks for all targets, and once more instead of fetching the rest of the answer.
func unfetched(t *testing.T, c *Client) {
	t.Helper()
	if err := c.Send(c.TextPDU(NoTag, Text("SendTargets=All"))); err != nil {
		t.Fatal(err)
	}
	p, err := c.Receive()
	if err != nil || p.Opcode() != TextResp || p.Header[1]&0x40 == 0 {
		t.Fatalf("no part of a longer answer: PDU %#x, flags %#x, %v", p.Opcode(), p.Header[1], err)
	}
	if err := c.Send(c.TextPDU(p.Get(20), Text("SendTargets=All"))); err != nil {
		t.Fatal(err)
	}
	if p, err = c.Receive(); err != nil || p.Opcode() != Reject {
		t.Fatalf("asked again before the answer was fetched: PDU %#x, %v, want a Reject", p.Opcode(), err)
	}
}
