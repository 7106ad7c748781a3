// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"fmt"
)

// message is what the script gets at each sample.
type message struct {
	Page   string            `json:"page"`             // the page's own version: another one has other columns
	At     int64             `json:"at"`               // ms since 1970
	Facts  [][]any           `json:"facts,omitempty"`  // cells, by number
	Tables map[string]change `json:"tables,omitempty"` // that have changed
	Totals totals            `json:"totals"`
	Levels map[string][2]int `json:"levels,omitempty"` // of logical units at work: bytes and latency, see level
	Past   *graphs           `json:"past,omitempty"`   // what the graphs begin with
}

// change is what has changed in a table.
type change struct {
	Order []string `json:"order"`          // keys of all rows, null if they are the same as before
	Rows  [][]any  `json:"rows,omitempty"` // key, and the cells that have changed
	Left  int      `json:"left"`           // rows that are left out
}

// graphs are the samples that are kept.
type graphs struct {
	At     []int64           `json:"at"`
	Totals []totals          `json:"totals"`
	Loads  map[string][]byte `json:"loads"`
	Waits  map[string][]byte `json:"waits"`
}

// messageLocked has what is in the view now and was not before, nil for all there is.
func (p *Page) messageLocked(before *view, past bool) []byte {
	now := p.viewLocked()
	m := message{Page: version, At: now.at.UnixMilli(), Totals: now.totals, Tables: make(map[string]change), Levels: make(map[string][2]int)}
	for i := range now.facts {
		if before == nil || !now.facts[i].same(&before.facts[i], facts[i].Kind) {
			m.Facts = append(m.Facts, now.facts[i].event(i))
		}
	}
	for i := range tables {
		var c change
		if before == nil {
			c = changes(&tables[i], nil, now.tables[i], true)
		} else {
			c = changes(&tables[i], before.tables[i], now.tables[i], before.left[i] != now.left[i])
		}
		if c.Left = now.left[i]; c.Order != nil || c.Rows != nil {
			m.Tables[tables[i].ID] = c
		}
	}
	for key, l := range now.levels {
		if l != [2]byte{} {
			m.Levels[key] = [2]int{int(l[0]), int(l[1])}
		}
	}
	if past {
		m.Past = &graphs{p.history.at, p.history.totals, p.history.loads, p.history.waits}
	}
	text, err := json.Marshal(m)
	if err != nil { // there is nothing in it that can't be written
		panic(fmt.Sprintf("page: %v", err))
	}
	return text
}

// changes are those of a table. Rows are told apart by their keys.
func changes(t *table, before, now []row, all bool) change {
	var c change
	old := make(map[string]*row, len(before))
	moved := all || len(before) != len(now)
	for i := range before {
		old[before[i].Key] = &before[i]
		moved = moved || before[i].Key != now[i].Key
	}
	if moved {
		c.Order = make([]string, 0, len(now))
	}
	for i := range now {
		r := &now[i]
		if moved {
			c.Order = append(c.Order, r.Key)
		}
		was := old[r.Key]
		entry := []any{r.Key}
		for j := range r.Cells {
			if was == nil || !r.Cells[j].same(&was.Cells[j], t.Columns[j].Kind) {
				entry = append(entry, r.Cells[j].event(j))
			}
		}
		if len(entry) > 1 {
			c.Rows = append(c.Rows, entry)
		}
	}
	return c
}
