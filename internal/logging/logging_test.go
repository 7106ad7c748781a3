// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/internal/limit"
)

// entry is what the journal is given.
type entry struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

// journalLogger returns a logger whose entries are collected, unless err is set.
func journalLogger(level slog.Leveler, other slog.Handler, err *error) (*slog.Logger, *[]entry) {
	list := new([]entry)
	send := func(message string, p journal.Priority, fields map[string]string) error {
		if err != nil && *err != nil {
			return *err
		}
		*list = append(*list, entry{message, p, fields})
		return nil
	}
	return slog.New(&journalHandler{name: "gotgtd", level: level, send: send, other: other}), list
}

func TestJournal(t *testing.T) {
	level := new(slog.LevelVar)
	log, entries := journalLogger(level, slog.DiscardHandler, nil)
	log.Debug("not enabled")
	log.With("target", "iqn.t").WithGroup("").Info("logged in", "initiator", "iqn.i", "lun", 3, "left-out", 2)
	log.Warn("plain")
	log.WithGroup("g").With("a", true).Error("bad", "why", errors.New("line 1\nline \"2\" \u202e"), "message", "mine", "_0", time.Second)
	level.Set(slog.LevelDebug)
	log.Debug("enabled", "empty", "")
	want := []entry{
		{"logged in target=iqn.t initiator=iqn.i lun=3 left-out=2", journal.PriInfo, map[string]string{"TARGET": "iqn.t", "INITIATOR": "iqn.i", "LUN": "3", "LEFT_OUT": "2"}},
		{"plain", journal.PriWarning, map[string]string{}},
		{`bad g.a=true g.why="line 1\nline \"2\" \u202e" g.message=mine g._0=1s`, journal.PriErr, map[string]string{"G_A": "true", "G_WHY": `line 1\nline "2" \u202e`, "G_MESSAGE": "mine", "G__0": "1s"}},
		{`enabled empty=""`, journal.PriDebug, map[string]string{"EMPTY": ""}},
	}
	for i := range want {
		want[i].Fields["SYSLOG_IDENTIFIER"] = "gotgtd"
	}
	if diff := cmp.Diff(want, *entries); diff != "" {
		t.Errorf("-want +logged:\n%s", diff)
	}
}

func TestFieldName(t *testing.T) {
	for key, want := range map[string]string{"target": "TARGET", "bytes_per-second": "BYTES_PER_SECOND", "_x": "X", "9": "FIELD_", "message": "FIELD_MESSAGE", "priority": "FIELD_PRIORITY", "ä": "FIELD_"} {
		if got := fieldName(key); got != want {
			t.Errorf("%q is field %q, want %q", key, got, want)
		}
	}
}

// What the journal does not take goes to its stream.
func TestJournalGone(t *testing.T) {
	var b bytes.Buffer
	gone := errors.New("no such file")
	log, entries := journalLogger(slog.LevelInfo, slog.NewTextHandler(&b, nil), &gone)
	log = log.With("target", "iqn.t").WithGroup("g")
	log.Warn("not lost", "lun", 1)
	if !strings.Contains(b.String(), `msg="not lost" target=iqn.t g.lun=1`) {
		t.Errorf("the stream has %q", &b)
	}
	gone = nil
	log.Warn("back")
	if len(*entries) != 1 || strings.Contains(b.String(), "back") {
		t.Errorf("the journal has %v, the stream %q", *entries, &b)
	}
}

// What initiators cause is bounded in the journal too: the line as in every other form, and its fields once more.
func TestJournalBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		log, entries := journalLogger(slog.LevelInfo, slog.DiscardHandler, nil)
		text := rapid.StringOfN(rapid.Rune(), 0, 400, -1)
		wild := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 2000), func(b []byte) string { return string(b) })
		limited := limit.Logger(log)
		for range 30 * limit.Lines {
			limited.Error("backing store can't read", "target", text.Draw(rt, "target"), "lun", 1, "initiator", text.Draw(rt, "initiator"),
				"reason", errors.New(wild.Draw(rt, "reason")), "tsih", 65535)
			if len(*entries) > 3 {
				break
			}
		}
		for _, e := range *entries {
			total := 0
			for name, value := range e.Fields {
				total += len(name) + len(value)
				if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					rt.Fatalf("%s=%q", name, value)
				}
			}
			if len(e.Message) > limit.LineBytes || total > limit.LineBytes {
				rt.Fatalf("a line of %d bytes and fields of %d: %+v", len(e.Message), total, e)
			}
		}
	})
}

// So it is in JSON, where what is escaped once is escaped again, with the count of lines that are left out.
func TestJSONBounds(t *testing.T) {
	var b bytes.Buffer
	log := limit.Logger(slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: escapeAfter(nil)})))
	for !strings.Contains(b.String(), "left-out") {
		log.Error("refused", "reason", errors.New(strings.Repeat("\u202e", 400)))
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > limit.LineBytes {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

// JSON has what others have said escaped, and keeps numbers.
func TestJSONEscapes(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: escapeAfter(nil)}))
	log.Warn("refused", "initiator", "a\x1b[2J\u202eb\xff", "error", errors.New("x\ny"), "lun", 7)
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{"level": "WARN", "msg": "refused", "initiator": `a\x1b[2J\u202eb\xff`, "error": `x\ny`, "lun": 7.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +logged:\n%s", diff)
	}
}

func TestNew(t *testing.T) {
	for _, f := range append(Formats(), "") {
		if _, err := New("gotgtd", f, slog.LevelInfo); err != nil {
			t.Errorf("format %q: %v", f, err)
		}
	}
	if _, err := New("gotgtd", "xml", slog.LevelInfo); err == nil || err.Error() != `"xml" is none of auto, text, json` {
		t.Errorf("format xml: %v", err)
	}
	for _, name := range Levels() {
		if l, err := ParseLevel(strings.ToUpper(name)); err != nil || LevelName(l) != name {
			t.Errorf("level %s is %v, %v", name, l, err)
		}
	}
	if _, err := ParseLevel("INFO+4"); err == nil || !strings.Contains(err.Error(), "none of debug, info, warn, error") {
		t.Errorf("level INFO+4: %v", err)
	}
}
