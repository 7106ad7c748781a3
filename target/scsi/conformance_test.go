// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// An opcode is an operation code with its service action, -1 for a code that has none, and the
// length of its CDB.
type opcode struct {
	code   byte
	action int
	length int
}

func (o opcode) String() string {
	if o.action < 0 {
		return fmt.Sprintf("%02Xh", o.code)
	}
	return fmt.Sprintf("%02Xh/%02Xh", o.code, o.action)
}

// opcodes are those that a disk has, as REPORT SUPPORTED OPERATION CODES tells.
func opcodes(t tb) (list []opcode) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	defer lu.Close()
	all := h.want(good, []byte{0xa3, 0x0c, 8: 0xff, 11: 0}, nil, 65535).data
	for d := range slices.Chunk(all[4:], 8) {
		o := opcode{d[0], -1, int(binary.BigEndian.Uint16(d[6:]))}
		if d[5]&0x01 != 0 { // SERVACTV
			o.action = int(binary.BigEndian.Uint16(d[2:]))
		}
		list = append(list, o)
	}
	return list
}

// TestCommandsAreDocumented compares the table in docs/conformance.md with what a disk has.
func TestCommandsAreDocumented(t *testing.T) {
	var have, told []string
	for _, o := range opcodes(t) {
		have = append(have, o.String())
	}
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| command | codes | standard |\n")
	if !found {
		t.Fatal("docs/conformance.md has no table of commands")
	}
	code := regexp.MustCompile(`^[0-9A-F]{2}h(/[0-9A-F]{2}h)?$`)
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			t.Fatalf("docs/conformance.md: %q has %d cells, want 3", line, len(cells))
		}
		for c := range strings.SplitSeq(cells[1], ", ") {
			if !code.MatchString(c) {
				t.Errorf("docs/conformance.md: %q is no code such as 9Eh/10h", c)
			}
			told = append(told, c)
		}
	}
	slices.Sort(have)
	slices.Sort(told)
	if d := cmp.Diff(told, have); d != "" {
		t.Errorf("told in docs/conformance.md (-) and there (+):\n%s", d)
	}
}
