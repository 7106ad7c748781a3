// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
)

// TestOpenings tells of a start that takes long, and of no other.
func TestOpenings(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	conf := &config.Config{Targets: []config.Target{{LUNs: make([]config.LUN, 2)}, {LUNs: make([]config.LUN, 3)}}}
	n := newOpenings(log, conf)
	n.opened()
	if b.Len() > 0 {
		t.Errorf("told of the first at once: %s", &b)
	}
	n.last = n.last.Add(-progressInterval)
	n.opened()
	n.opened()
	if got := b.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg="opening backing stores" done=2 of=5`) {
		t.Errorf("told: %s", got)
	}
	for n.done < 5 {
		n.last = n.last.Add(-progressInterval)
		n.opened()
	}
	if !strings.Contains(b.String(), "done=5 of=5") {
		t.Errorf("told: %s", &b)
	}
	(*openings)(nil).opened()
}
