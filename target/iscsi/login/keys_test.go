// SPDX-License-Identifier: Apache-2.0

package login

import (
	"testing"
)

// TestOperationalKeys negotiates each key (RFC 7143 13).
func TestOperationalKeys(t *testing.T) {
	limits := Limits{MaxBurstLength: 65536, FirstBurstLength: 32768}.WithDefaults()
	for _, c := range []struct{ key, offer, answer string }{
		{"HeaderDigest", "CRC32C,None", "CRC32C"},
		{"HeaderDigest", "X,None", "None"},
		{"DataDigest", "X", "Reject"},
		{"MaxConnections", "100", "8"},
		{"MaxConnections", "0", "Reject"},
		{"InitialR2T", "Yes", "Yes"},
		{"InitialR2T", "No", "No"},
		{"InitialR2T", "Maybe", "Reject"},
		{"ImmediateData", "No", "No"},
		{"MaxBurstLength", "16777215", "65536"},
		{"MaxBurstLength", "511", "Reject"},
		{"FirstBurstLength", "0x1000", "4096"},
		{"MaxOutstandingR2T", "65535", "8"},
		{"DefaultTime2Wait", "5", "5"},
		{"DefaultTime2Retain", "3601", "Reject"},
		{"ErrorRecoveryLevel", "2", "0"},
		{"DataPDUInOrder", "No", "Yes"},
		{"DataSequenceInOrder", "No", "Yes"},
		{"IFMarker", "Yes", "No"},
		{"OFMarkInt", "2048~2048", "Reject"},
		{"TaskReporting", "FastAbort,RFC3720", "RFC3720"},
		{"iSCSIProtocolLevel", "2", "1"},
		{"X-com.example.key", "v", "NotUnderstood"},
	} {
		n := negotiation{Params: rfcDefaults()}
		if got, answered := n.operational(c.key, c.offer, &limits, true, true); !answered || got != c.answer {
			t.Errorf("%s=%s is answered %q, want %q", c.key, c.offer, got, c.answer)
		}
	}
	n := negotiation{Params: rfcDefaults()}
	if got, _ := n.operational("MaxConnections", "4", &limits, false, true); got != "Irrelevant" {
		t.Errorf("MaxConnections on a further connection is answered %q", got)
	}
}
