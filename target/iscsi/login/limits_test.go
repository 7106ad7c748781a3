// SPDX-License-Identifier: Apache-2.0

package login

import (
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
)

// A discovery session keeps nothing, whatever the defaults of a target's sessions are.
func TestDiscoveryKeepsNothing(t *testing.T) {
	limits := (&Login{Discovery: true}).limits()
	for key, want := range map[string]string{"DefaultTime2Wait": "5", "DefaultTime2Retain": "0"} {
		n := negotiation{Params: rfcDefaults()}
		if got, answered := n.operational(key, "5", &limits, true, false); !answered || got != want {
			t.Errorf("%s=5 of a discovery session is answered with %q, want %q", key, got, want)
		}
	}
}

func TestLimitsWithDefaults(t *testing.T) {
	l := Limits{MaxBurstLength: 65536, MaxOutstandingR2T: 64}
	l.SetDefaults()
	if err := check.Errors(l.Check); err != nil {
		t.Error(err)
	}
	if l.FirstBurstLength != 65536 || l.MaxOutstandingR2T != 64 || !*l.ImmediateData || *l.DefaultTime2Wait != 2 {
		t.Errorf("defaults: %+v", l)
	}
	if used := l.WithDefaults(); used.MaxOutstandingR2T != MaxR2T {
		t.Errorf("%d R2Ts of one task at a time", used.MaxOutstandingR2T)
	}
}

func TestLimitsCheck(t *testing.T) {
	l := Limits{
		MaxRecvDataSegmentLength: 511, MaxBurstLength: 512, FirstBurstLength: 1024, MaxConnections: 9, QueueDepth: -1,
		HeaderDigest: []string{"None", "CRC32", "None"}, DefaultTime2Wait: new(3601), NOPInterval: -time.Second,
	}
	l.SetDefaults()
	want := []string{
		"max-recv-data-segment-length: 511 is not in the range from 512 to 16777215",
		"max-connections: 9 is not in the range from 1 to 8",
		"queue-depth: -1 is not in the range from 1 to 4096",
		"first-burst-length: 1024 is more than MaxBurstLength, 512 (RFC 7143 13.14)",
		"default-time2wait: 3601 is not in the range from 0 to 3600",
		`header-digest[1]: "CRC32" is none of CRC32C, None`,
		"header-digest[2]: None is given twice",
		"nop-interval: must be a time or off",
	}
	if err := check.Errors(l.Check); err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("%v", err)
	}
}
