// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// migrated is a targets.conf with what initiators are told of disks: as it comes, with
// names of its own and thin, with all else that can be said, in blocks of 4 KiB, and with
// names as long as they can be.
func migrated(files []string) string {
	text := "<target " + peer.IQN + ">\n"
	for i, directives := range []string{
		"",
		"scsi_id hosta-lun1\nscsi_sn SERIAL-1\nparams thin_provisioning=1",
		"vendor_id ACME\nproduct_id DISK\nproduct_rev 7\nremovable 1\nreadonly 1\nlbppbe 1\nla_lba 5\noptimal_xfer_gran 16\noptimal_xfer_len 64\n" +
			"write-cache off\nsense_format 1\nparams rotation_rate=7200",
		"block-size 4096",
		"scsi_id deadbeef:vol000300000000000000000abc\nscsi_sn 012345678901234567890123456789012345\nparams rotation_rate=1",
	} {
		text += fmt.Sprintf("<backing-store %s>\nlun %d\n%s\n</backing-store>\n", files[i], i+1, directives)
	}
	return text + "</target>\n"
}

// migratedDisks is how many disks migrated has, from LUN 1.
const migratedDisks = 5

// answers are what a target says of its logical units, by LUN and what was asked. What
// it refuses is missing.
type answers map[uint16]map[string][]byte

// told asks a target all that the comparison is about.
func told(t *testing.T, target peer.Target) answers {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: target.Portals()[0], TargetName: peer.IQN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := answers{}
	for lun := range uint16(migratedDisks + 1) {
		if err := s.Settle(t.Context(), initiator.LUN(lun)); err != nil {
			t.Fatal(err)
		}
		a := &asker{t, s, lun, map[string][]byte{}}
		a.askAll()
		all[lun] = a.answers
	}
	return all
}

// asker asks one logical unit.
type asker struct {
	t       *testing.T
	s       *initiator.Session
	lun     uint16
	answers map[string][]byte
}

// ask sends a CDB and returns the answer, nil if it is refused.
func (a *asker) ask(cdb ...byte) []byte {
	a.t.Helper()
	cmd := &initiator.Command{LUN: initiator.LUN(a.lun), In: make([]byte, 4096)}
	copy(cmd.CDB[:], cdb)
	var refused *initiator.StatusError
	switch err := a.s.Do(a.t.Context(), cmd); {
	case errors.As(err, &refused):
		return nil
	case err != nil:
		a.t.Fatal(err)
	}
	return cmd.In[:cmd.Received]
}

// note keeps an answer that there is.
func (a *asker) note(what string, data []byte) {
	if data != nil {
		a.answers[what] = data
	}
}

func (a *asker) askAll() {
	a.t.Helper()
	a.note("INQUIRY", a.ask(0x12, 0, 0, 4, 0))
	for page := range 256 {
		a.note(fmt.Sprintf("VPD page %02Xh", page), a.ask(0x12, 1, byte(page), 4, 0))
	}
	a.note("REPORT LUNS", a.ask(0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0))
	a.note("READ CAPACITY (10)", a.ask(0x25))
	a.note("READ CAPACITY (16)", a.ask(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32))
	for control, values := range []string{"current", "changeable", "default", "saved"} {
		short := a.ask(0x1a, 0, byte(control<<6|0x3f), 0, 255)
		long := a.ask(0x5a, 0, byte(control<<6|0x3f), 0, 0, 0, 0, 4, 0)
		if short != nil {
			a.modes("MODE SENSE (6) ", values, short[:4], short[4:], int(short[3]))
		}
		if long != nil {
			a.modes("MODE SENSE (10) ", values, long[:8], long[8:], int(long[7]))
		}
	}
}

// modes takes what MODE SENSE answers apart. The length in the header follows from the
// pages, and is checked here.
func (a *asker) modes(command, values string, header, rest []byte, descriptor int) {
	a.t.Helper()
	length := []byte{byte(len(header) + len(rest) - 1)}
	if len(header) == 8 {
		length = []byte{0, byte(len(header) + len(rest) - 2)}
	}
	after, ok := bytes.CutPrefix(header, length)
	if !ok {
		a.t.Fatalf("LUN %d: the header % x of %d bytes", a.lun, header, len(header)+len(rest))
	}
	a.note(command+"header", after)
	a.note(command+"block descriptor", rest[:descriptor])
	for p := rest[descriptor:]; len(p) > 0; {
		name, n := fmt.Sprintf("mode page %02Xh", p[0]&0x3f), 2+int(p[1])
		if p[0]&0x40 != 0 {
			name, n = fmt.Sprintf("mode page %02Xh/%02Xh", p[0]&0x3f, p[1]), 4+int(p[3])
		}
		name += ", " + values
		if before, twice := a.answers[name]; twice && !bytes.Equal(before, p[:n]) {
			a.t.Errorf("LUN %d %s: MODE SENSE (6) has % x, (10) % x", a.lun, name, before, p[:n])
		}
		a.note(name, p[:n])
		p = p[n:]
	}
}

// difference is a run of bytes in which tgt and gotgtd differ.
type difference struct {
	what string
	luns string // which logical units have it, in order
	at   int    // the first byte
	tgt  string // hexadecimal; "-" for no answer at all, and then "*" for one on the other side
	ours string
}

// differences compares what two targets have said.
func differences(tgt, ours answers) []difference {
	luns := map[difference]string{}
	for lun := range uint16(migratedDisks + 1) {
		all := maps.Clone(tgt[lun])
		maps.Copy(all, ours[lun])
		for what := range all {
			a, hadA := tgt[lun][what]
			b, hadB := ours[lun][what]
			for _, d := range runs(a, b, hadA, hadB) {
				d.what = what
				luns[d] = strings.TrimSpace(fmt.Sprintf("%s %d", luns[d], lun))
			}
		}
	}
	var list []difference
	for d, which := range luns {
		d.luns = which
		list = append(list, d)
	}
	return list
}

// runs finds the bytes that differ.
func runs(a, b []byte, hadA, hadB bool) (list []difference) {
	switch {
	case !hadA:
		return []difference{{tgt: "-", ours: "*"}}
	case !hadB:
		return []difference{{tgt: "*", ours: "-"}}
	}
	short := min(len(a), len(b))
	for i := 0; i < short; i++ {
		if a[i] == b[i] {
			continue
		}
		from := i
		for i < short && a[i] != b[i] {
			i++
		}
		list = append(list, difference{at: from, tgt: hex.EncodeToString(a[from:i]), ours: hex.EncodeToString(b[from:i])})
	}
	if len(a) != len(b) {
		list = append(list, difference{at: short, tgt: hex.EncodeToString(a[short:]), ours: hex.EncodeToString(b[short:])})
	}
	return list
}

// TestTgtByteForByte serves files with Debian's tgtd, then the same files with gotgtd
// from the same targets.conf, and compares what initiators are told. What differs
// is in differsFromTgt, with the reason, and in docs/migrating.md; nothing else may, and
// nothing that is listed may be the same.
func TestTgtByteForByte(t *testing.T) {
	t.Parallel()
	peer.Need(t, "/usr/sbin/tgtd")
	var files []string
	for range migratedDisks {
		files = append(files, sparse(t, "disk.img", 16<<20))
	}
	o := peer.Options{Dir: t.TempDir(), Config: migrated(files)}
	tgt, err := peer.StartTgt(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tgt.Kill)
	theirs := told(t, tgt)
	tgt.Kill() // gotgtd refuses a file that tgtd has open
	ours := told(t, start(t, o))

	var want []difference
	for why, list := range differsFromTgt {
		if why == "" {
			t.Error("differences without a reason")
		}
		want = append(want, list...)
	}
	got := differences(theirs, ours)
	order := func(a, b difference) int {
		return cmp.Or(strings.Compare(a.what, b.what), strings.Compare(a.luns, b.luns), cmp.Compare(a.at, b.at))
	}
	slices.SortFunc(want, order)
	slices.SortFunc(got, order)
	if d := gocmp.Diff(want, got, gocmp.AllowUnexported(difference{})); d != "" {
		t.Errorf("differences between tgtd and gotgtd (-listed +seen):\n%s", d)
	}
	if t.Failed() {
		for _, d := range got {
			t.Logf("{%q, %q, %d, %q, %q},", d.what, d.luns, d.at, d.tgt, d.ours)
		}
	}
}
