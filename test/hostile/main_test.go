// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"os"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// gotgtd is the daemon under attack, upgraded what supervises it where it is upgraded.
var (
	gotgtd   = peer.GoProgram("gotgtd", "../../cmd/gotgtd")
	upgraded = peer.GoProgram("upgraded", "../../cmd/upgraded")
)

func TestMain(m *testing.M) { os.Exit(peer.Main(m, gotgtd, upgraded)) }

// TestTools tries the client, the innocent and the daemon's figures without an attack.
func TestTools(t *testing.T) {
	d := Start(t, gotgtd, Config(""))
	c := d.Login(t, 1)
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(c.NOP(false, []byte("ping")), c.Command(Transfer(false, 0, 1), false, innocentBlock, nil)); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Expect(NOPIn); err != nil || string(p.Data) != "ping" {
		t.Errorf("NOP-In with %q, %v", p.Data, err)
	}
	if p, err := c.Expect(DataIn); err != nil || len(p.Data) != innocentBlock {
		t.Errorf("Data-In of %d bytes, %v", len(p.Data), err)
	}
	i := LogIn(t, d)
	d.ResetPeak(t)
	f := i.For(t, 200*time.Millisecond)
	rss, peak := d.RSS(t), d.PeakRSS(t)
	Figure(t, "undisturbed: %v; RSS %s, peak %s", f, MiB(rss), MiB(peak))
	if f.Writes.Count() == 0 || f.WriteRate() == 0 || rss < 1<<20 || peak < rss/2 {
		t.Error("these figures can't be right")
	}
}
