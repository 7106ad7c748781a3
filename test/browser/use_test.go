// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// column is the texts of a column of the rows that are to be seen, from the top.
func (b *browser) column(table, title string) []string {
	b.t.Helper()
	return value[[]string](b, `(() => {
		const table = document.getElementById("`+table+`");
		const n = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "`+title+`");
		return [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[n].textContent);
	})()`)
}

// press clicks on the title of a column, by the keyboard.
func (b *browser) press(table, title string) {
	b.t.Helper()
	value[bool](b, `[...document.querySelectorAll("#`+table+` thead button")].find((e) => e.textContent === "`+title+`").focus(); true`)
	b.do(chromedp.KeyEvent("\r"))
}

// TestSortAndFilter: order and choice stay through events and an upgrade.
func TestSortAndFilter(t *testing.T) {
	d := start(t, small(t))
	for _, host := range []string{"c", "a", "b"} {
		d.login(t, first, "iqn.2026-11.test:host-"+host, "Host "+host)
	}
	b := open(t, d.page)
	b.live()
	b.waitFor(`document.querySelectorAll("#sessions tbody tr").length === 3`)
	order := func(table, title string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, b.column(table, title)); diff != "" {
			t.Errorf("-want +shown:\n%s", diff)
		}
	}
	given := b.column("sessions", "Alias")
	b.press("sessions", "Alias")
	order("sessions", "Alias", "Host a", "Host b", "Host c")
	b.press("sessions", "Alias")
	order("sessions", "Alias", "Host c", "Host b", "Host a")
	if got := value[string](b, `document.querySelector("#sessions th[aria-sort]").ariaSort`); got != "descending" {
		t.Errorf("a reader hears %q", got)
	}
	b.press("luns", "Size") // numbers by their size, not by their text
	order("luns", "Size", "1 GiB", "8 MiB", "3 MiB", "0 B")

	d.login(t, first, "iqn.2026-11.test:host-bb", "Host bb")
	b.waitFor(`document.querySelectorAll("#sessions tbody tr").length === 4`)
	order("sessions", "Alias", "Host c", "Host bb", "Host b", "Host a")
	d.upgrade(t)
	b.waitFor("document.getElementById('fact-generation').textContent === '2'")
	order("sessions", "Alias", "Host c", "Host bb", "Host b", "Host a")
	b.do(chromedp.SendKeys(chromedp.CSS("#filter"), "HOST-B"))
	order("sessions", "Alias", "Host bb", "Host b")
	if got := b.column("luns", "LUN"); len(got) != 0 {
		t.Errorf("logical units that are not meant: %q", got)
	}
	if got := value[string](b, "document.getElementById('found').textContent"); got == "" {
		t.Error("it is not said how many rows are left")
	}
	d.login(t, first, "iqn.2026-11.test:other", "Other")
	b.waitFor(`document.querySelectorAll("#sessions tbody tr").length === 5`)
	order("sessions", "Alias", "Host bb", "Host b") // who comes is chosen as well
	value[bool](b, `document.getElementById("filter").value = ""; document.getElementById("filter").dispatchEvent(new Event("input")); true`)
	b.press("sessions", "Alias")
	if got := b.column("sessions", "Alias"); len(got) != 5 || !slices.Equal(got[:3], given) {
		t.Errorf("the order that there was does not come back: %q", got)
	}
}

// TestPhone: the page is not wider than a phone, and what is left out there is not needed to know what a row is.
func TestPhone(t *testing.T) {
	d := start(t, small(t))
	d.login(t, first, "iqn.2026-11.test:host-with-a-name-that-is-rather-long.rack-17.example.com", "")
	d.upgrade(t)
	b := open(t, d.page, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	b.live()
	if w := value[int](b, "document.documentElement.scrollWidth"); w > 360 {
		t.Errorf("the page is %d pixels wide", w)
	}
	if hidden := value[int](b, `[...document.querySelectorAll("main tbody th")].filter((e) => getComputedStyle(e).display === "none").length`); hidden > 0 {
		t.Errorf("%d rows have no title", hidden)
	}
	if small := value[[]string](b, `[...document.querySelectorAll("nav a, input, thead button")].filter((e) => e.checkVisibility() && parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML)`); len(small) > 0 {
		t.Errorf("text that is too small: %q", small)
	}
}
