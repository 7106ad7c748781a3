// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a daemon whose state a test changes.
type world struct {
	mu sync.Mutex // protects st
	st control.Status
}

func (w *world) status() control.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.st
	st.Targets = append([]target.TargetStatus{}, st.Targets...)
	for i := range st.Targets {
		st.Targets[i].LUNs = append([]target.LUNStatus{}, st.Targets[i].LUNs...)
	}
	st.Sessions = append([]target.SessionStatus{}, st.Sessions...)
	return st
}

func (w *world) change(f func(st *control.Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.st)
}

// disk is a logical unit of a status.
func disk(lun uint16) target.LUNStatus {
	return target.LUNStatus{LUN: lun, UnitInfo: scsi.UnitInfo{Type: "disk", Online: true, Size: 1 << 30, StorePath: "/srv/disk.img"}}
}

// newWorld has one target with two disks, and one session.
func newWorld() *world {
	w := new(world)
	w.st.Version, w.st.Generation, w.st.Started = "1.2.3", 1, time.Now()
	w.st.Targets = []target.TargetStatus{{TID: 1, Name: "iqn.2026-11.test:a", State: "ready", ACL: []string{"ALL"}, LUNs: []target.LUNStatus{
		{LUN: 0, UnitInfo: scsi.UnitInfo{Type: "controller"}}, disk(1), disk(2),
	}}}
	w.st.Sessions = []target.SessionStatus{{
		TSIH: 7, Initiator: "iqn.2026-11.test:i", Target: "iqn.2026-11.test:a", Started: time.Now(),
		Connections: []target.ConnectionStatus{{Remote: netip.MustParseAddrPort("192.0.2.1:999")}},
	}}
	return w
}

// quiet is longer than any test: nothing is sampled but what the test samples.
const quiet = time.Hour

// serve answers with a page, by a server with short times for requests, until the test ends.
func serve(t *testing.T, w *world, interval time.Duration, past []byte) (*Page, string) {
	t.Helper()
	p := New(Options{Status: w.status, Interval: interval, Past: past})
	s := httptest.NewUnstartedServer(p.Handler())
	s.Config.ReadTimeout, s.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	s.Start()
	t.Cleanup(func() {
		p.Close()
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return p, s.URL
}

// stream is a browser that gets events.
type stream struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Scanner
	id    string // of the last event
}

// listen asks for events.
func listen(t *testing.T, url string, header ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	s := &stream{t: t, resp: resp, lines: bufio.NewScanner(resp.Body)}
	s.lines.Buffer(nil, 8<<20)
	return s
}

// event is a message as the script has it.
type event struct {
	Page   string
	At     int64
	Facts  [][]any
	Tables map[string]struct {
		Order []string
		Rows  [][]any
		Left  int
	}
	Totals []uint64
	Levels map[string][]int
	Past   *struct {
		At           []int64
		Totals       [][]uint64
		Loads, Waits map[string][]byte
	}
}

// next waits for an event; ok is false at the end of the stream.
func (s *stream) next() (e event, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		if id, ok := strings.CutPrefix(s.lines.Text(), "id: "); ok {
			s.id = id
		}
		if data, ok := strings.CutPrefix(s.lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				s.t.Fatalf("%v: %s", err, data)
			}
			return e, true
		}
	}
	return e, false
}

func (s *stream) must() event {
	s.t.Helper()
	e, ok := s.next()
	if !ok {
		s.t.Fatalf("the stream has ended: %v", s.lines.Err())
	}
	return e
}

// TestEvents: the first event has everything, the others what has changed.
func TestEvents(t *testing.T) {
	w := newWorld()
	p, url := serve(t, w, quiet, nil)
	s := listen(t, url)
	e := s.must()
	if e.Past == nil || len(e.Past.At) != 1 || len(e.Facts) != len(facts) || len(e.Tables) != len(tables) {
		t.Fatalf("the first event lacks something: %+v", e)
	}
	if diff := cmp.Diff([]string{"1/1", "1/2"}, e.Tables["luns"].Order); diff != "" {
		t.Errorf("logical units: %s", diff)
	}
	p.sample()
	if e = s.must(); e.Tables["luns"].Rows == nil || e.Past != nil { // the rates are known now
		t.Errorf("the second event: %+v", e)
	}
	p.sample()
	if e = s.must(); len(e.Tables) != 0 || len(e.Facts) != 0 {
		t.Errorf("nothing has changed, and the event has %+v, %+v", e.Tables, e.Facts)
	}
	w.change(func(st *control.Status) { st.Targets[0].LUNs[2].Error = "is missing" })
	p.sample()
	e = s.must()
	units := e.Tables["luns"]
	if len(e.Tables) != 2 || units.Order != nil || len(units.Rows) != 1 || units.Rows[0][0] != "1/2" || len(units.Rows[0]) != 2 {
		t.Errorf("one logical unit is not ready, and the event has %+v", e.Tables)
	}
	if got := fmt.Sprint(units.Rows[0][1]); got != "[3 not ready 0 bad]" {
		t.Errorf("the cell is %s", got)
	}
	if got := e.Tables["attention"].Order; len(got) != 1 || got[0] != "1/2e" {
		t.Errorf("what needs attention: %q", got)
	}
	w.change(func(st *control.Status) { st.Sessions = nil })
	p.sample()
	if got := s.must().Tables["sessions"].Order; got == nil || len(got) != 0 {
		t.Errorf("the sessions are %v, want none", got)
	}
}

// TestEventsGoOn: the times that a server has for requests end no stream.
func TestEventsGoOn(t *testing.T) {
	_, url := serve(t, newWorld(), 40*time.Millisecond, nil)
	s := listen(t, url)
	for range 15 {
		s.must()
	}
}

// TestEventsAfterUpgrade: a successor begins without graphs for a browser that has them.
func TestEventsAfterUpgrade(t *testing.T) {
	w := newWorld()
	p, url := serve(t, w, quiet, nil)
	s := listen(t, url)
	s.must()
	p.Close()
	if _, ok := s.next(); ok || s.lines.Err() != nil {
		t.Fatalf("the stream goes on, or ends by an error: %v", s.lines.Err())
	}
	if _, ok := listen(t, url).next(); ok {
		t.Error("who asks the one that has left is not sent to the successor")
	}
	_, url = serve(t, w, quiet, p.Past())
	if e := listen(t, url, "Last-Event-ID", s.id).must(); e.Past != nil || len(e.Tables) != len(tables) {
		t.Errorf("the browser gets graphs again, or not all tables: %+v", e)
	}
	old := fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli())
	for _, id := range []string{old, "", "x"} {
		if e := listen(t, url, "Last-Event-ID", id).must(); e.Past == nil || len(e.Past.At) != 2 {
			t.Errorf("Last-Event-ID %q: the graphs have %+v, want the predecessor's sample and one more", id, e.Past)
		}
	}
}

// TestLateStream: a stream that has missed a sample gets everything.
func TestLateStream(t *testing.T) {
	p := New(Options{Status: newWorld().status, Interval: quiet})
	defer p.Close()
	p.watch(1)
	first := p.next(0, true)
	p.sample()
	p.sample()
	var e event
	if err := json.Unmarshal(p.next(first.tick, false).text, &e); err != nil || len(e.Tables) != len(tables) {
		t.Errorf("%d tables, %v", len(e.Tables), err)
	}
	if err := json.Unmarshal(p.next(first.tick+1, false).text, &e); err != nil {
		t.Error(err)
	}
	if text := string(p.next(first.tick+1, false).text); strings.Contains(text, "order\":[") {
		t.Errorf("who has missed nothing gets %s", text)
	}
}

// TestBounds: streams and documents are bounded, and other sites' pages take up none.
func TestBounds(t *testing.T) {
	p, url := serve(t, newWorld(), quiet, nil)
	if resp := listen(t, url, "Sec-Fetch-Site", "cross-site").resp; resp.StatusCode != http.StatusForbidden {
		t.Errorf("another site's page: %s", resp.Status)
	}
	head, err := http.Head(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	if head.Body.Close(); head.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %v", head.Header)
	}
	for range maxStreams {
		listen(t, url).must()
	}
	if resp := listen(t, url).resp; resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %s", resp.Status)
	}
	for range maxAnswers {
		p.answers <- struct{}{}
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one document too many: %s", resp.Status)
	}
	w := newWorld()
	for n := range maxRows + 5 {
		w.st.Targets[0].LUNs = append(w.st.Targets[0].LUNs, disk(uint16(n+3)))
	}
	st := w.status()
	var h history
	h.restore(nil)
	h.add(time.Now(), &st)
	v := newView(&st, &h)
	if len(v.tables[unitTable]) != maxRows || v.left[unitTable] != 7 || len(h.loads) != maxUnits {
		t.Errorf("%d rows, %d left out, %d graphs", len(v.tables[unitTable]), v.left[unitTable], len(h.loads))
	}
}

// get returns an answer and its text.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// TestDocument: what others have written is text in it, and each answer is guarded.
func TestDocument(t *testing.T) {
	w := newWorld()
	w.st.Sessions[0].Alias = "<script>alert(1)</script>\u202e"
	w.st.Upgrades = []handoff.Report{{
		Time: time.Unix(1e9, 0), Generation: 2, Pause: 1500 * time.Microsecond, Phases: []handoff.Phase{{Name: "freeze", Duration: time.Millisecond}}, Error: "it's \"wrong\"",
	}}
	_, url := serve(t, w, quiet, nil)
	_, text := get(t, url)
	for _, want := range []string{
		"&lt;script&gt;alert(1)&lt;/script&gt;\uFFFD", ">iqn.2026-11.test:i</th>", "192.0.2.1:999", "it&#39;s &#34;wrong&#34;", "freeze 1 ms", "2001-09-09 01:46:40", "1.50 ms",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the document", want)
		}
	}
	if strings.Contains(text, "alert(1)</script>") || strings.Contains(text, " style=") || strings.Contains(text, "<script>") {
		t.Error("there is a script or a style in the document")
	}
	for path, kind := range map[string]string{"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css", "/icon.svg": "image/svg+xml", "/nothing": "text/plain"} {
		resp, _ := get(t, url+path)
		for name, want := range map[string]string{
			"Content-Security-Policy": "script-src 'self'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Type": kind,
		} {
			if got := resp.Header.Get(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
	resp, err := http.Post(url, "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

// TestAttention: what an administrator should look at is said with its reason.
func TestAttention(t *testing.T) {
	w := newWorld()
	w.st.MemoryWaiting = 3
	w.st.Rejections = []target.RejectionStatus{{Initiator: "iqn.2026-11.test:x", Target: "iqn.2026-11.test:a", Until: time.Unix(1e9, 0)}}
	w.st.Upgrades = []handoff.Report{{Error: "no room"}}
	w.st.Targets = append(w.st.Targets, target.TargetStatus{TID: 2, Name: "iqn.2026-11.test:b", State: "offline"})
	l := w.st.Targets[0].LUNs
	l[1].FlushFailed, l[1].Lost, l[1].Counters.Errors = true, "reservations are damaged", 2
	l[2].Online = false
	l[2].Space = &storage.Space{Allocated: 1 << 20, Free: 1 << 20, Total: 1 << 30}
	st := w.status()
	var h history
	h.restore(nil)
	h.add(time.Now(), &st)
	got := make(map[string]string)
	for _, r := range newView(&st, &h).tables[attentionTable] {
		got[r.Key] = r.Cells[1].Text
		if r.Cells[0].Text == "" || r.Cells[2].Text == "" {
			t.Errorf("%+v says too little", r.Cells)
		}
	}
	want := map[string]string{
		"1/1f": "flush failed", "1/1s": "errors", "1/1l": "reservations lost", "1/2o": "offline", "1/2a": "little space", "upgrade": "failed", "memory": "short", "t2": "offline", "r0": "rejected",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestFailures: each is shown with its reason, how often it was and when last, which an upgrade does not change.
func TestFailures(t *testing.T) {
	w := newWorld()
	w.st.Totals = tally.Totals{
		Logins:       []tally.Login{{Target: "iqn.2026-11.test:a", Count: 9}, {Target: "iqn.2026-11.test:a", Reason: "authentication_failed", Count: 2}},
		Closed:       map[string]uint64{tally.LoggedOut: 7, tally.NOPTimeout: 1},
		DigestErrors: map[string]uint64{"data": 3},
		Management:   map[string]uint64{"abort_task": 4},
	}
	w.st.Targets[0].LUNs[1].Activity.Failures = map[string]uint64{"medium_error": 5, "unit_attention": 6}
	start := time.Now().Truncate(time.Second)
	var h history
	h.restore(nil)
	shown := func(at time.Time) map[string]string {
		st := w.status()
		h.add(at, &st)
		rows := make(map[string]string)
		for _, r := range newView(&st, &h).tables[failureTable] {
			rows[r.Cells[0].Text+": "+r.Cells[1].Text+", "+r.Cells[2].Text] = r.Cells[3].Text + ", " + r.Cells[4].Text
		}
		return rows
	}
	want := map[string]string{
		"login: authentication failed, iqn.2026-11.test:a":   "2, –",
		"connection: nop timeout, –":                         "1, –",
		"digest: data, –":                                    "3, –",
		"task management: abort task, –":                     "4, –",
		"command: medium error, LUN 1 of iqn.2026-11.test:a": "5, –",
	}
	if diff := cmp.Diff(want, shown(start)); diff != "" {
		t.Errorf("at first: %s", diff)
	}
	w.st.Totals.Closed = map[string]uint64{tally.NOPTimeout: 2, tally.HeaderDigest: 1}
	shown(start.Add(10 * time.Second))
	text, err := json.Marshal(h.past())
	if err != nil {
		t.Fatal(err)
	}
	h = history{}
	h.restore(readPast(text))
	want["connection: nop timeout, –"], want["connection: header digest, –"] = "2, 20 s", "1, 20 s"
	if diff := cmp.Diff(want, shown(start.Add(30*time.Second))); diff != "" {
		t.Errorf("after an upgrade: %s", diff)
	}
}
