// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// failure is how often something has failed for one reason, since the service was started.
type failure struct {
	key   string
	what  string
	where string
	why   string
	count uint64
}

// noted is when a count was last seen to rise.
type noted struct {
	Count uint64 `json:"count"`
	At    int64  `json:"at"` // ms since 1970; 0: before anybody looked
}

// usual are reasons that say nothing of a fault: of connections, those that a logout or an administrator ends, and refused
// logins, which are counted as such; of commands, what every login brings.
var usual = []string{tally.LoggedOut, tally.DiscoveryTimeout, tally.Shutdown, tally.Dismissed, tally.LoginFailed, "unit_attention", "illegal_request"}

// failures lists what has failed, [maxRows] at most.
func failures(st *control.Status) (list []failure) {
	add := func(what, where, why string, n uint64) {
		if n > 0 && len(list) < maxRows && !slices.Contains(usual, why) {
			list = append(list, failure{strings.Join([]string{what, where, why}, "|"), what, where, strings.ReplaceAll(why, "_", " "), n})
		}
	}
	each := func(what, where string, counts map[string]uint64) {
		for _, why := range slices.Sorted(maps.Keys(counts)) {
			add(what, where, why, counts[why])
		}
	}
	for _, l := range st.Totals.Logins {
		if l.Reason != "" {
			add("login", l.Target, l.Reason, l.Count)
		}
	}
	each("connection", "", st.Totals.Closed)
	each("digest", "", st.Totals.DigestErrors)
	each("task management", "", st.Totals.Management)
	disks(st, func(t *target.TargetStatus, l *target.LUNStatus) {
		each("command", fmt.Sprintf("LUN %d of %s", l.LUN, t.Name), l.Activity.Failures)
	})
	return list
}

// note finds out which counts have risen since the sample before. Of those that it finds at the first one nobody
// knows when they have.
func (h *history) note(now int64, list []failure) {
	next := make(map[string]noted, len(list))
	for _, f := range list {
		n := noted{f.count, now}
		switch before, known := h.noted[f.key]; {
		case h.noted == nil:
			n.At = 0
		case known && before.Count == f.count:
			n.At = before.At
		}
		next[f.key] = n
	}
	h.noted = next
}

func (v *view) failed(f *failure, n noted) {
	last := unknown()
	if n.At > 0 {
		last = cell{Text: age(v.at.Sub(ms(n.At))), Value: float64(n.At / 1000)}
	}
	where := text(f.where)
	if f.where == "" {
		where = cell{Text: "–", Mark: dim}
	}
	v.add(failureTable, f.key, cell{Text: f.what}, cell{Text: f.why}, where, countCell(f.count), last)
}
