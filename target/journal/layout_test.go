// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// part is a row of a table in docs/crash.md.
type part struct{ off, size int64 }

// The tables of the layout in docs/crash.md are what the code has, and no part of a region overlaps the next.
func TestLayoutIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/crash.md")
	if err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		size  int64
		parts []part
	}{
		"header and control area": {atIndex, []part{
			{0, headerLen}, {headerLen, 4}, {atEpoch, 8}, {atLastSerial, 8}, {atLastTSIH, 8}, {atCommitted, 8}, {atApplied, 8}, {atRedo, 2 * redoSize},
		}},
		"region of a session": {sessionSize, []part{
			{sessionCommit, 8}, {sessionSlots, 8}, {sessionRecords, 2 * 128}, {sessionRows, rows * 2 * rowHead}, {sessionStatic, staticHead + maxStatic},
			{rowsAt, rows * 2 * rowLen}, {slotsAt, Slots * slotSize},
		}},
		"slot": {slotSize, []part{{slotStart, 8}, {slotFirst, 2 * (slotOther - slotFirst)}, {slotR2Ts, 2 * maxR2T * r2tLen}, {slotSense, 2 + SenseLength}}},
		"region of a connection": {connectionSize, []part{
			{connBatch, 8}, {connInput, 8}, {connStart, 8}, {connPDUs, 8}, {connRecords, 2 * 64}, {connInputs, 2 * 64},
			{connStatic, staticConn + staticHead + maxStaticC}, {connPlaces, Places * pduLen}, {connBatches, 2 * batchSize},
		}},
		"region of a logical unit": {unitSize, []part{{unitStatic, staticHead + maxStaticU}, {unitFirst, 2 * unitVersion}}},
	} {
		_, table, _ := strings.Cut(string(text), "| offset | bytes | "+title+" |\n|---:|---:|---|\n")
		table, _, _ = strings.Cut(table, "\n\n")
		rows := regexp.MustCompile(`(?m)^\| (\d+) \| (\d+) \|`).FindAllString(table, -1)
		end := int64(0)
		for i, p := range c.parts {
			if p.off < end || p.off+p.size > c.size {
				t.Errorf("%s: %d bytes at %d overlap what ends at %d, or go beyond %d", title, p.size, p.off, end, c.size)
			}
			end = p.off + p.size
			if row := fmt.Sprintf("| %d | %d |", p.off, p.size); i >= len(rows) || rows[i] != row {
				t.Errorf("%s in docs/crash.md: row %d is not %q", title, i+1, row)
			}
		}
		if len(rows) != len(c.parts) {
			t.Errorf("%s in docs/crash.md has %d rows, and the code %d", title, len(rows), len(c.parts))
		}
	}
	for what, n := range map[string][2]int{
		"record of a session": {sessionRecordLen, 128}, "record of a connection": {connRecordLen, 64}, "input": {inputLen, 64},
		"slot": {slotRecordLen, slotOther - slotFirst}, "batch": {batchHeaders + BatchPDUs*headerSize, batchSize}, "tail of a PDU": {tailAt + 8, headerSize},
	} {
		if n[0] > n[1] {
			t.Errorf("%s: %d bytes, and %d are there", what, n[0], n[1])
		}
	}
}
