// SPDX-License-Identifier: Apache-2.0

package target

import (
	"net/netip"
	"testing"

	"github.com/gotgtd/gotgtd/internal/zerocall"
)

// TestZeroArguments calls everything with nil and nothing: it may be refused.
func TestZeroArguments(t *testing.T) {
	served := embed(t, Options{})
	addTarget(t, served, iqnA)
	listen(t, served)
	zerocall.Package(t, map[string]any{
		"New": func(o Options) {
			if s, err := New(o); err != nil || s.Close() != nil {
				t.Error(err)
			}
		},
		"Look": Look,
	}, served, embed(t, Options{}), (*Server)(nil), new(ReplacedError), new(InUseError), new(LostError), new(DismissedError), new(NoSessionError), new(Lengths), (*Lengths)(nil))
	if err := served.AddPortals(nil, "", PortalAddress{Address: netip.AddrPort{}}); err == nil {
		t.Error("a portal without a listener")
	}
}
