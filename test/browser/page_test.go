// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
)

// row is a row of a table: the texts of its cells by the titles of their columns, and the values that they are sorted by.
type row struct {
	Text  map[string]string
	Value map[string]float64
}

// rows are those of a table, by their keys.
func (b *browser) rows(table string) map[string]row {
	b.t.Helper()
	return value[map[string]row](b, `Object.fromEntries([...document.querySelectorAll("#`+table+` tbody tr")].map((tr) => {
		const heads = [...document.querySelectorAll("#`+table+` thead th")].map((th) => th.textContent);
		const of = (f) => Object.fromEntries([...tr.cells].map((c, i) => [heads[i], f(c)]));
		return [tr.dataset.key, {Text: of((c) => c.textContent), Value: of((c) => Number(c.dataset.value))}];
	}))`)
}

const (
	first  = "iqn.2026-11.test:first"
	second = "iqn.2026-11.test:second"
)

// small has a logical unit of each sort. One has no backing store.
func small(t *testing.T) string {
	return fmt.Sprintf(`ignore-errors: true
targets:
  - name: %s
    alias: The first
    luns:
      - {lun: 1, backend: ram, size: 8MiB}
      - {lun: 2, backend: ram, size: 1GiB, read-only: true}
      - {lun: 3, path: %s/missing.img}
  - name: %s
    luns: [{lun: 1, backend: ram, size: 3MiB}]
`, first, t.TempDir(), second)
}

// writeSome writes and reads for a while.
func writeSome(t *testing.T, s *initiator.Session, d time.Duration) {
	t.Helper()
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	load := initiator.Load{Sessions: []*initiator.Session{s}, LUN: initiator.LUN(1), Blocks: 4096, BlockSize: 512, Bytes: 4096, ReadPercent: 30, Rate: 500, Duration: d}
	if _, err := load.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reserve registers a key and takes a persistent reservation, Write Exclusive.
func reserve(t *testing.T, s *initiator.Session, lun uint16) {
	t.Helper()
	const register, reserve, writeExclusive, key = 0, 1, 1, 7
	if err := s.Settle(t.Context(), initiator.LUN(lun)); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*initiator.Command{
		new(initiator.Command).ReserveOut(initiator.LUN(lun), register, 0, 0, key, 0),
		new(initiator.Command).ReserveOut(initiator.LUN(lun), reserve, writeExclusive, key, 0, 0),
	} {
		if err := s.Do(t.Context(), cmd); err != nil || cmd.Status != 0 {
			t.Fatalf("PERSISTENT RESERVE OUT: status %#x, %v", cmd.Status, err)
		}
	}
}

// want are the rows that a status makes, as far as they don't change while nobody does anything.
func want(st *control.Status) (units, sessions, targets map[string]map[string]any) {
	units, sessions, targets = map[string]map[string]any{}, map[string]map[string]any{}, map[string]map[string]any{}
	for _, t := range st.Targets {
		disks := 0
		for _, l := range t.LUNs {
			if l.Type != "disk" {
				continue
			}
			disks++
			state := "ready"
			switch {
			case l.Error != "":
				state = "not ready"
			case l.ReadOnly:
				state = "read-only"
			}
			units[fmt.Sprintf("%d/%d", t.TID, l.LUN)] = map[string]any{
				"LUN": strconv.Itoa(int(l.LUN)), "Target": t.Name, "Backing store": map[bool]string{true: l.StorePath, false: l.StoreType}[l.StorePath != ""], "State": state, "Size": float64(l.Size), "Errors": float64(l.Counters.Errors),
			}
		}
		targets[strconv.Itoa(t.TID)] = map[string]any{
			"TID": float64(t.TID), "Target": t.Name, "Alias": t.Alias, "State": t.State, "LUNs": float64(disks), "Sessions": float64(len(t.SessionTSIH)),
		}
	}
	for _, s := range st.Sessions {
		sessions[fmt.Sprintf("s%d", s.TSIH)] = map[string]any{
			"TSIH": float64(s.TSIH), "Initiator": s.Initiator, "Alias": s.Alias, "Address": s.Connections[0].Remote.String(), "Target": s.Target, "Age": float64(s.Started.Unix()),
			"Queue": float64(s.Tasks), "Read in all": float64(s.Counters.ReadBytes), "Written in all": float64(s.Counters.WrittenBytes),
		}
	}
	return units, sessions, targets
}

// agree says what is shown otherwise than it is wanted.
func agree(shown map[string]row, want map[string]map[string]any) string {
	got := make(map[string]map[string]any)
	for key, r := range shown {
		got[key] = map[string]any{}
		for title, w := range want[key] {
			got[key][title] = r.Text[title]
			if _, ok := w.(float64); ok {
				got[key][title] = r.Value[title]
			}
		}
	}
	return cmp.Diff(want, got)
}

// TestShowsWhatTheAPISays compares each table with the status.
func TestShowsWhatTheAPISays(t *testing.T) {
	d := start(t, small(t))
	b := open(t, d.page)
	b.live()
	s := d.login(t, first, "iqn.2026-11.test:host-a", "Host A")
	d.login(t, second, "iqn.2026-11.test:host-b", "")
	writeSome(t, s, time.Second)
	reserve(t, s, 1)
	until(t, func() error {
		units, sessions, targets := want(d.status(t))
		for table, rows := range map[string]map[string]map[string]any{"luns": units, "sessions": sessions, "targets": targets} {
			if diff := agree(b.rows(table), rows); diff != "" {
				return fmt.Errorf("%s: -API +page\n%s", table, diff)
			}
		}
		return nil
	})
	for range 2 {
		if _, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portal, TargetName: "iqn.2026-11.test:none"}); err == nil {
			t.Fatal("a login to a target that is not there")
		}
	}
	until(t, func() error {
		for _, r := range b.rows("failures") {
			if r.Text["Reason"] == "target not found" && r.Text["Times"] == "2" && strings.HasSuffix(r.Text["Last"], " s") {
				return nil
			}
		}
		return fmt.Errorf("two logins have failed, and the page shows %+v", b.rows("failures"))
	})
	attention := b.rows("attention")
	if r := attention["1/3e"]; len(attention) != 1 || r.Text["State"] != "not ready" || !strings.Contains(r.Text["Why, and what to do"], "missing.img") {
		t.Errorf("what needs attention: %+v", attention)
	}
	if r := b.rows("reservations")["1/1"].Text; r["Type"] != "Write Exclusive" || !strings.HasPrefix(r["Held by"], "iqn.2026-11.test:host-a,i,0x") || r["Registrations"] != "1" {
		t.Errorf("reservation: %q", r)
	}
	if got := value[string](b, "document.getElementById('fact-luns').textContent"); got != "3 of 4" {
		t.Errorf("LUNs ready: %q", got)
	}
	// The session ends, and its row with it.
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.waitFor(`document.querySelectorAll("#sessions tbody tr").length === 1`)
}

// TestGoesOnThroughUpgrades: one generation after the other sends events to the same document, without a gap.
func TestGoesOnThroughUpgrades(t *testing.T) {
	const upgrades = 20
	d := start(t, fmt.Sprintf("targets:\n  - name: %s\n    luns: [{lun: 1, backend: ram, size: 8MiB}]\n", first))
	s := d.login(t, first, "iqn.2026-11.test:host", "")
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	b := open(t, d.page)
	b.live()
	value[bool](b, `window.marker = "here"; window.at = []; new PerformanceObserver((list) => {
		for (const e of list.getEntries()) window.at.push(e.startTime);
	}).observe({type: "measure"}); true`)
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan error, 1)
	go func() {
		load := initiator.Load{Sessions: []*initiator.Session{s}, LUN: initiator.LUN(1), Blocks: 4096, BlockSize: 512, Bytes: 4096, Rate: 200, Duration: 10 * time.Minute}
		_, err := load.Run(ctx)
		loaded <- err
	}()
	for n := range upgrades {
		d.upgrade(t)
		// Each generation is seen before the next one follows.
		b.waitFor(fmt.Sprintf("document.getElementById('fact-generation').textContent === '%d'", n+2))
	}
	until(t, func() error {
		if r := b.rows("luns")["1/1"]; !(r.Value["Written"] > 0) {
			return fmt.Errorf("nothing is shown to be written: %+v", r)
		}
		return nil
	})
	if got := value[string](b, "window.marker || 'none'"); got != "here" {
		t.Error("the page was loaded again")
	}
	if n := value[int](b, `document.querySelectorAll("#upgrades tbody tr").length`); n != upgrades {
		t.Errorf("%d upgrades are shown, want %d", n, upgrades)
	}
	if n := value[int](b, `document.querySelectorAll("#upgrades td.phases rect").length`); n < 4*upgrades {
		t.Errorf("%d phases are drawn of %d upgrades", n, upgrades)
	}
	gap := value[float64](b, "Math.max(...window.at.slice(1).map((t, i) => t - window.at[i]))")
	t.Logf("figure: %d upgrades, %d updates of the page, the longest time between two %.0f ms", upgrades, value[int](b, "window.at.length"), gap)
	// Who comes now sees what was before.
	b.do(chromedp.Reload())
	b.live()
	if n := value[int](b, `document.querySelector("#chart-bytes .first").getAttribute("d").split("L").length`); n < upgrades {
		t.Errorf("the graphs have %d samples after %d upgrades, each of which took one at the least", n, upgrades)
	}
	cancel()
	if err := <-loaded; err == nil || ctx.Err() == nil {
		t.Errorf("the initiator: %v", err)
	}
	if s.Err() != nil {
		t.Errorf("the session has ended: %v", s.Err())
	}
}

// TestManyRows measures what one update costs the browser with 200 logical units and 200 sessions, all of them at work.
func TestManyRows(t *testing.T) {
	const many = 200
	var y strings.Builder
	fmt.Fprintf(&y, "targets:\n  - name: %s\n    luns:\n", first)
	for n := range many {
		fmt.Fprintf(&y, "      - {lun: %d, backend: ram, size: 1MiB}\n", n+1)
	}
	d := start(t, y.String())
	var all []*initiator.Session
	for n := range many {
		s := d.login(t, first, fmt.Sprintf("iqn.2026-11.test:host-%03d", n), fmt.Sprintf("Host %d", n))
		if err := s.Settle(t.Context(), initiator.LUN(uint16(n+1))); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	b := open(t, d.page)
	b.live()
	// What is shown is up to a sample old: the last sessions come with the next one.
	b.waitFor(fmt.Sprintf(`document.querySelectorAll("#luns tbody tr").length + document.querySelectorAll("#sessions tbody tr").length === %d`, 2*many))
	b.do(action(performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}))
	value[bool](b, `window.updates = 0; new PerformanceObserver((list) => { window.updates += list.getEntries().length }).observe({type: "measure"}); true`)
	before, from := b.processorTime(), value[int](b, "window.updates")
	data := make([]byte, 4096)
	const updates = 8
	for value[int](b, "window.updates") < from+updates {
		for n, s := range all { // each reads from a logical unit of its own, so that every row changes
			cmd := new(initiator.Command).Read10(initiator.LUN(uint16(n+1)), 0, 8, data, 0)
			if err := s.Do(t.Context(), cmd); err != nil || cmd.Status != 0 {
				t.Fatalf("READ: status %#x, %v", cmd.Status, err)
			}
		}
	}
	after, n := b.processorTime(), float64(value[int](b, "window.updates")-from)
	busy := 0
	for _, r := range b.rows("luns") {
		if r.Value["Read"] > 0 {
			busy++
		}
	}
	if busy < many/2 {
		t.Errorf("only %d logical units are shown to be read", busy)
	}
	each := func(name string) time.Duration {
		return time.Duration((after[name] - before[name]) / n * float64(time.Second)).Round(100 * time.Microsecond)
	}
	t.Logf("figure: one update of %d rows takes the browser %v of processor time: script %v, style %v, layout %v",
		2*many, each("TaskDuration"), each("ScriptDuration"), each("RecalcStyleDuration"), each("LayoutDuration"))
	// What has not changed is left alone: no row is made anew.
	value[bool](b, `window.kept = document.querySelector("#luns tbody tr"); true`)
	b.waitFor(fmt.Sprintf("window.updates > %d", value[int](b, "window.updates")))
	if !value[bool](b, `window.kept === document.querySelector("#luns tbody tr") && window.kept.isConnected`) {
		t.Error("rows are made anew by an update")
	}
}

// processorTime is what the page's thread has used, in seconds, by what for.
func (b *browser) processorTime() map[string]float64 {
	b.t.Helper()
	r := get(b, func(ctx context.Context, t *chromedp.Target) (performance.GetMetricsResult, error) {
		return cdp.Call(ctx, t, performance.GetMetrics, cdp.Empty{})
	})
	all := make(map[string]float64)
	for _, m := range r.Metrics {
		all[m.Name] = m.Value
	}
	return all
}

// TestHostileNames: what initiators call themselves is text, whatever is in it.
func TestHostileNames(t *testing.T) {
	d := start(t, small(t))
	b := open(t, d.page)
	b.live()
	names := map[string]string{
		`iqn.2026-11.test:<script>window.hacked=1</script>`: `<img src=x onerror=window.hacked=1>`,
		`iqn.2026-11.test:"><svg/onload=window.hacked=1>`:   `" autofocus onfocus="window.hacked=1`,
		`iqn.2026-11.test:'{{.}}${window.hacked=1}`:         "</td></tr></table><script>window.hacked=1</script>",
		"iqn.2026-11.test:a\u202egnirts\u2066b":             "\u202edesrever \u0000\u0007 \u200fx",
	}
	for name, alias := range names {
		d.login(t, first, name, strings.ReplaceAll(alias, "\u0000", ""))
	}
	check := func(t *testing.T) {
		t.Helper()
		b.waitFor(fmt.Sprintf(`document.querySelectorAll("#sessions tbody tr").length === %d`, len(names)))
		shown := make(map[string]bool)
		for _, r := range b.rows("sessions") {
			shown[r.Text["Initiator"]] = true
			if strings.ContainsAny(r.Text["Initiator"]+r.Text["Alias"], "\u202e\u2066\u200f\u0007") {
				t.Errorf("the direction of writing can be changed by %q, %q", r.Text["Initiator"], r.Text["Alias"])
			}
		}
		for name := range names {
			name = strings.NewReplacer("\u202e", "\uFFFD", "\u2066", "\uFFFD").Replace(name)
			if !shown[name] {
				t.Errorf("%q is not shown: %v", name, shown)
			}
		}
		if value[bool](b, `"hacked" in window || document.querySelectorAll("td *:not(svg):not(path):not(rect):not(div):not(span), main script, main img").length > 0`) {
			t.Error("a name has become markup")
		}
	}
	t.Run("by events", check)
	b.do(chromedp.Reload())
	t.Run("in the document", check)
}

// TestWithoutScript: the tables are in the document.
func TestWithoutScript(t *testing.T) {
	d := start(t, small(t))
	d.login(t, first, "iqn.2026-11.test:host-a", "Host A")
	d.upgrade(t)
	b := open(t, d.page, action(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
	see := func() string { return get(b, chromedp.Text(chromedp.CSS("body"))) }
	until(t, func() error { // a sample is up to 2 s old
		text := see()
		for _, w := range []string{first, second, "iqn.2026-11.test:host-a", "Host A", "not ready", "missing.img", "freeze", "Load the page again"} {
			if !strings.Contains(text, w) {
				b.do(chromedp.Reload())
				return fmt.Errorf("%q is not there:\n%s", w, text)
			}
		}
		return nil
	})
	if text := see(); strings.Contains(text, "Show rows with") || strings.Contains(text, "5 min") {
		t.Errorf("there is something to see that needs a script:\n%s", text)
	}
}

// TestAccessible has the basics that programs can check.
func TestAccessible(t *testing.T) {
	d := start(t, small(t))
	d.login(t, first, "iqn.2026-11.test:host-a", "Host A")
	d.upgrade(t)
	b := open(t, d.page)
	b.live()
	b.waitFor(`document.querySelectorAll("#upgrades tbody tr").length === 1`)
	for what, expression := range map[string]string{
		"inputs and buttons without a name":     `[...document.querySelectorAll("input, button")].filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel))`,
		"headers without a scope":               `[...document.querySelectorAll("th")].filter((e) => !["row", "col"].includes(e.scope))`,
		"rows without a header":                 `[...document.querySelectorAll("tbody tr")].filter((e) => e.querySelectorAll("th[scope=row]").length !== 1)`,
		"regions to scroll without a name":      `[...document.querySelectorAll(".scroll")].filter((e) => e.tabIndex !== 0 || !document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)`,
		"pictures that a reader would stop at":  `[...document.querySelectorAll("svg")].filter((e) => e.getAttribute("aria-hidden") !== "true")`,
		"links to nowhere":                      `[...document.querySelectorAll("a[href^='#']")].filter((e) => !document.querySelector(e.getAttribute("href")))`,
		"ids that are there twice":              `[...document.querySelectorAll("[id]")].filter((e) => document.querySelectorAll("#" + CSS.escape(e.id)).length > 1)`,
		"regions that speak up beside the line": `[...document.querySelectorAll("[aria-live], [role=alert], [role=status]")].filter((e) => e.id !== "live")`,
		"headings that leave out a level":       `[...document.querySelectorAll("h1, h2, h3, h4")].filter((e, i, all) => Number(e.tagName[1]) > (i ? Number(all[i - 1].tagName[1]) : 0) + 1)`,
	} {
		if bad := value[[]string](b, expression+".map((e) => e.outerHTML.slice(0, 120))"); len(bad) > 0 {
			t.Errorf("%s: %q", what, bad)
		}
	}
	if !value[bool](b, `document.documentElement.lang === "en" && document.title !== "" && document.querySelectorAll("main").length === 1 && document.querySelectorAll("h1").length === 1`) {
		t.Error("no language, title, main part or heading")
	}
	for _, scheme := range []string{"light", "dark"} {
		b.do(inScheme(scheme))
		if low := value[[]string](b, contrast); len(low) > 0 {
			t.Errorf("%s: too little contrast: %q", scheme, low)
		}
	}
}

// inScheme has the page in light or dark.
func inScheme(scheme string) chromedp.Action[chromedp.Void] {
	return action(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// contrast lists texts with less contrast than WCAG 2.2 AA wants, 4.5 to 1.
const contrast = `(() => {
	const rgb = (text) => text.match(/[\d.]+/g).map(Number);
	const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
	const back = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
	const low = new Set();
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) low.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
	}
	return [...low];
})()`
