// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
)

// attend lists what an administrator should look at, the worst first.
func (v *view) attend(st *control.Status) {
	disks(st, v.attendUnit)
	if n := len(st.Upgrades); n > 0 && st.Upgrades[n-1].Error != "" {
		v.attention("upgrade", "The last upgrade", cell{Text: "failed", Mark: bad},
			st.Upgrades[n-1].Error+". What ran before goes on. gotgtd plan says what a reload would do; mend what the error names, and reload.")
	}
	if st.MemoryWaiting > 0 {
		v.attention("memory", "Memory", cell{Text: "short", Mark: warn},
			fmt.Sprintf("%d commands wait for memory. The queues of the sessions show who has most under way; limits.memory raises the limit.", st.MemoryWaiting))
	}
	for i := range st.Targets {
		if t := &st.Targets[i]; t.State != "ready" {
			v.attention(fmt.Sprintf("t%d", t.TID), t.Name, cell{Text: t.State, Mark: warn}, "Nobody can log in, as the configuration says.")
		}
	}
	for i, r := range st.Rejections {
		v.attention(fmt.Sprintf("r%d", i), r.Initiator, cell{Text: "rejected", Mark: warn},
			"An administrator has ended its session. It may log in to "+r.Target+" again at "+moment(r.Until)+" UTC.")
	}
}

func (v *view) attention(key, what string, state cell, why string) {
	v.add(attentionTable, key, text(what), state, text(why))
}

func (v *view) attendUnit(t *target.TargetStatus, l *target.LUNStatus) {
	key, what := unitKey(t.TID, l.LUN), fmt.Sprintf("LUN %d of %s", l.LUN, t.Name)
	if l.Error != "" {
		v.attention(key+"e", what, cell{Text: "not ready", Mark: bad}, l.Error+". A backing store that comes back is opened within 5 s.")
	} else if !l.Online {
		v.attention(key+"o", what, cell{Text: "offline", Mark: warn}, "It is offline in the configuration, or an initiator has stopped or ejected it.")
	}
	if l.FlushFailed {
		v.attention(key+"f", what, cell{Text: "flush failed", Mark: bad},
			"What was written before may not be on stable storage. Stop using the disk, check the device below it and its log, then the file system on it.")
	}
	if l.Counters.Errors > 0 {
		v.attention(key+"s", what, cell{Text: "errors", Mark: bad},
			count(l.Counters.Errors)+" commands have failed in the backing store. The kernel's log and gotgtd's have the device and the error.")
	}
	if s := l.Space; s != nil && s.Allocated < l.Size && s.Free < s.Total/10 && s.Free < l.Size-s.Allocated {
		v.attention(key+"a", what, cell{Text: "little space", Mark: warn}, "The disk is thin, and the file system below it has "+size(float64(s.Free))+
			" left: its writes will fail. Make room, enlarge the file system, or let the initiator give space back (fstrim).")
	}
	if l.Lost != "" {
		v.attention(key+"l", what, cell{Text: "reservations lost", Mark: bad}, l.Lost)
	}
}
