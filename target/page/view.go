// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// maxRows bounds a table.
const maxRows = 1000

// column is a column of a table.
type column struct {
	Title string
	Kind  kind
	Head  bool // what its row is called
	Wide  bool // left out on a phone
	Extra bool // left out unless there is much room
}

// table is what is the same at all times.
type table struct {
	ID      string
	Title   string
	Empty   string // what is said of a table without rows
	Columns []column
}

// The tables, in the order of the page.
const (
	attentionTable = iota
	unitTable
	sessionTable
	failureTable
	targetTable
	reservationTable
	upgradeTable
)

var tables = []table{
	attentionTable: {"attention", "Needs attention", "Nothing needs attention.", []column{
		{Title: "What", Kind: kindName, Head: true}, {Title: "State", Kind: kindState}, {Title: "Why, and what to do", Kind: kindText},
	}},
	unitTable: {"luns", "Logical units", "There are no logical units.", []column{
		{Title: "LUN", Kind: kindNumber, Head: true}, {Title: "Target", Kind: kindName}, {Title: "Backing store", Kind: kindName, Wide: true},
		{Title: "State", Kind: kindState}, {Title: "Size", Kind: kindNumber}, {Title: "Allocated", Kind: kindNumber, Extra: true},
		{Title: "Read", Kind: kindNumber}, {Title: "Written", Kind: kindNumber}, {Title: "IOPS", Kind: kindNumber},
		{Title: "Load, 5 min", Kind: kindLoads}, {Title: "Queue", Kind: kindNumber}, {Title: "Latency", Kind: kindNumber},
		{Title: "99 % in store", Kind: kindNumber, Extra: true}, {Title: "Latency, 5 min", Kind: kindWaits}, {Title: "Errors", Kind: kindNumber, Wide: true},
	}},
	sessionTable: {"sessions", "Sessions", "Nobody is logged in.", []column{
		{Title: "Initiator", Kind: kindName, Head: true}, {Title: "Alias", Kind: kindName, Wide: true}, {Title: "TSIH", Kind: kindNumber, Extra: true},
		{Title: "Address", Kind: kindName}, {Title: "Target", Kind: kindName, Wide: true}, {Title: "Age", Kind: kindAge}, {Title: "Queue", Kind: kindNumber},
		{Title: "Read", Kind: kindNumber}, {Title: "Written", Kind: kindNumber}, {Title: "IOPS", Kind: kindNumber},
		{Title: "Read in all", Kind: kindNumber, Extra: true}, {Title: "Written in all", Kind: kindNumber, Extra: true},
	}},
	failureTable: {"failures", "Failures", "Nothing has failed.", []column{
		{Title: "What", Kind: kindText}, {Title: "Reason", Kind: kindText, Head: true}, {Title: "Where", Kind: kindName}, {Title: "Times", Kind: kindNumber}, {Title: "Last", Kind: kindAge},
	}},
	targetTable: {"targets", "Targets", "There are no targets.", []column{
		{Title: "TID", Kind: kindNumber}, {Title: "Target", Kind: kindName, Head: true}, {Title: "Alias", Kind: kindName, Wide: true}, {Title: "State", Kind: kindState},
		{Title: "LUNs", Kind: kindNumber}, {Title: "Sessions", Kind: kindNumber},
		{Title: "Access", Kind: kindName, Wide: true}, {Title: "Accounts", Kind: kindName, Wide: true},
	}},
	reservationTable: {"reservations", "Reservations", "No logical unit is reserved.", []column{
		{Title: "LUN", Kind: kindNumber, Head: true}, {Title: "Target", Kind: kindName}, {Title: "Type", Kind: kindText},
		{Title: "Held by", Kind: kindName}, {Title: "Registrations", Kind: kindNumber},
	}},
	upgradeTable: {"upgrades", "Upgrades", "This process was started, and none has followed it yet.", []column{
		{Title: "Ago", Kind: kindAge}, {Title: "Time (UTC)", Kind: kindMoment, Head: true}, {Title: "Generation", Kind: kindNumber},
		{Title: "Result", Kind: kindState}, {Title: "Version", Kind: kindName, Wide: true}, {Title: "Pause", Kind: kindNumber}, {Title: "Phases", Kind: kindPhases},
		{Title: "Sessions", Kind: kindNumber, Wide: true}, {Title: "What has changed, or why it failed", Kind: kindText},
	}},
}

// fact is a figure of the whole daemon.
type fact struct {
	ID    string
	Title string
	Kind  kind
}

var facts = []fact{
	{"version", "Version", kindText}, // beside the title; the others are figures below it
	{"read", "Read", kindNumber}, {"written", "Written", kindNumber}, {"commands", "IOPS", kindNumber}, {"latency", "Latency", kindNumber},
	{"sessions", "Sessions", kindNumber}, {"luns", "LUNs ready", kindNumber}, {"memory", "Buffers", kindNumber},
	{"generation", "Generation", kindNumber}, {"age", "Serves for", kindAge},
}

// row is a row of a table.
type row struct {
	Key   string
	Cells []cell
}

// view is the state at one time, as it is shown.
type view struct {
	at     time.Time
	facts  []cell             // as in facts
	tables [][]row            // as in tables
	left   []int              // rows that are left out of each table
	totals totals             // at the last sample
	levels map[string][2]byte // of logical units that have graphs: bytes and latency
}

// newView makes a view of a status, and of the rates at that time.
func newView(st *control.Status, h *history) *view {
	n := len(h.at) - 1
	v := &view{at: ms(h.at[n]), tables: make([][]row, len(tables)), left: make([]int, len(tables)), totals: h.totals[n], levels: make(map[string][2]byte)}
	v.facts = v.factCells(st, h)
	for i := range st.Targets {
		v.target(&st.Targets[i])
	}
	disks(st, func(t *target.TargetStatus, l *target.LUNStatus) { v.unit(t, l, h) })
	for i := range st.Sessions {
		v.session(&st.Sessions[i], h)
	}
	list := failures(st)
	for i := range list {
		v.failed(&list[i], h.noted[list[i].key])
	}
	for i := len(st.Upgrades) - 1; i >= 0; i-- {
		v.upgrade(&st.Upgrades[i])
	}
	v.attend(st)
	return v
}

// add adds a row, if there is room for it.
func (v *view) add(table int, key string, cells ...cell) {
	if len(v.tables[table]) >= maxRows {
		v.left[table]++
		return
	}
	v.tables[table] = append(v.tables[table], row{key, cells})
}

func (v *view) factCells(st *control.Status, h *history) []cell {
	units, ready := 0, 0
	disks(st, func(_ *target.TargetStatus, l *target.LUNStatus) {
		units++
		if l.Online && l.Error == "" {
			ready++
		}
	})
	t := v.totals
	r := rateCells(rate{read: float64(t[0]), written: float64(t[1]), commands: float64(t[2] + t[3])}, len(h.at) > 1)
	luns := number(fmt.Sprintf("%s of %s", count(ready), count(units)), float64(ready))
	if ready < units {
		luns.Mark = bad
	}
	memory := sizeCell(st.Memory)
	memory.Text += " of " + size(float64(st.MemoryLimit))
	return []cell{
		text(st.Version), r[0], r[1], r[2], tookCell(time.Duration(t[4]) * time.Microsecond), countCell(len(st.Sessions)), luns, memory, countCell(st.Generation), since(st.Started, v.at),
	}
}

func (v *view) target(t *target.TargetStatus) {
	state := cell{Text: "ready", Mark: good}
	if t.State != "ready" {
		state = cell{Text: printable(t.State), Mark: warn}
	}
	units := 0
	for i := range t.LUNs {
		if t.LUNs[i].Type == "disk" {
			units++
		}
	}
	access := list(t.ACL)
	if access == "ALL" {
		access = "everyone"
	}
	accounts := cell{Text: list(t.Accounts)}
	if accounts.Text == "" {
		accounts = cell{Text: "none asked for", Mark: dim}
	}
	v.add(targetTable, strconv.Itoa(t.TID), countCell(t.TID), text(t.Name), text(t.Alias), state, countCell(units), countCell(len(t.SessionTSIH)),
		cell{Text: access}, accounts)
}

func (v *view) unit(t *target.TargetStatus, l *target.LUNStatus, h *history) {
	key := unitKey(t.TID, l.LUN)
	rated, known := h.rates[key]
	r := rateCells(rated, known)
	errors := countCell(l.Counters.Errors)
	if l.Counters.Errors > 0 {
		errors.Mark = bad
	}
	v.add(unitTable, key, cell{Text: strconv.Itoa(int(l.LUN)), Value: float64(l.LUN)}, text(t.Name), backing(l), unitState(l), sizeCell(l.Size), allocated(l),
		r[0], r[1], r[2], cell{}, countCell(l.Inflight), tookCell(rated.took.mean()), tookCell(rated.took.device.Quantile(0.99)), cell{}, errors)
	if loads, n := h.loads[key], len(h.at)-1; loads != nil && len(v.tables[unitTable]) <= maxRows {
		v.levels[key] = [2]byte{loads[n], h.waits[key][n]}
	}
	if s := l.Reservation; s != nil {
		holder := text(s.Holder)
		switch {
		case s.Holder == "" && s.Type == "none":
			holder = cell{Text: "nobody", Mark: dim}
		case s.Holder == "":
			holder.Text = "all that are registered"
		}
		v.add(reservationTable, key, cell{Text: strconv.Itoa(int(l.LUN)), Value: float64(l.LUN)}, text(t.Name), text(s.Type), holder, countCell(s.Registrations))
	}
}

// backing is what holds the blocks.
func backing(l *target.LUNStatus) cell {
	if l.StorePath == "" {
		return cell{Text: printable(l.StoreType), Mark: dim}
	}
	return text(l.StorePath)
}

// allocated is the space that the blocks take.
func allocated(l *target.LUNStatus) cell {
	if l.Space == nil {
		return unknown()
	}
	return sizeCell(l.Space.Allocated)
}

// unitState is what is most important of a logical unit.
func unitState(l *target.LUNStatus) cell {
	switch {
	case l.Error != "":
		return cell{Text: "not ready", Mark: bad}
	case l.FlushFailed:
		return cell{Text: "flush failed", Mark: bad}
	case !l.Online:
		return cell{Text: "offline", Mark: warn}
	case l.ReadOnly || l.SWP:
		return cell{Text: "read-only"}
	}
	return cell{Text: "ready", Mark: good}
}

func (v *view) session(s *target.SessionStatus, h *history) {
	rated, known := h.rates[sessionKey(s.TSIH)]
	r := rateCells(rated, known)
	var addresses []string
	for _, c := range s.Connections {
		addresses = append(addresses, c.Remote.String())
	}
	name := text(s.Target)
	if s.Target == "" {
		name = cell{Text: "discovery", Mark: dim}
	}
	v.add(sessionTable, sessionKey(s.TSIH), text(s.Initiator), text(s.Alias), cell{Text: strconv.Itoa(int(s.TSIH)), Value: float64(s.TSIH)},
		cell{Text: list(addresses)}, name, since(s.Started, v.at), countCell(s.Tasks), r[0], r[1], r[2], sizeCell(s.Counters.ReadBytes), sizeCell(s.Counters.WrittenBytes))
}

func (v *view) upgrade(u *handoff.Report) {
	result, about := cell{Text: "done", Mark: good}, ""
	if u.Error != "" {
		result, about = cell{Text: "failed", Mark: bad}, u.Error
	} else {
		about = strings.Join(u.Plan, "; ")
	}
	pause := number(took(u.Pause), float64(u.Pause.Microseconds())/1000)
	version := text(u.OldVersion)
	if u.NewVersion != u.OldVersion {
		version = text(u.OldVersion + " → " + u.NewVersion)
	}
	key := fmt.Sprintf("%d-%d", u.Time.Unix(), u.Generation)
	for slices.ContainsFunc(v.tables[upgradeTable], func(r row) bool { return r.Key == key }) { // two that failed within a second
		key += "+"
	}
	v.add(upgradeTable, key, since(u.Time, v.at), cell{Text: moment(u.Time)}, countCell(u.Generation), result, version,
		pause, phasesCell(u.Phases), countCell(u.Sessions), text(about))
}
