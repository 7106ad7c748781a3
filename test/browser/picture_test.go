// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

// maxPicture bounds a picture of docs, in bytes.
const maxPicture = 150 << 10

// pictures are those of docs/page.md, with the width of the window, in pixels, and whether it is dark.
var pictures = []struct {
	name   string
	width  int64
	scheme string
	top    string // what is at the top
}{
	{"page-light.png", 1280, "light", "main"}, {"page-dark.png", 1280, "dark", "failures-title"}, {"page-phone.png", 400, "light", "main"},
}

// TestPictures looks at the pictures of docs/page.md; with -update it takes them.
func TestPictures(t *testing.T) {
	if *update {
		takePictures(t)
	}
	text, err := os.ReadFile("../../docs/page.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pictures {
		file, err := os.ReadFile(filepath.Join("../../docs", p.name))
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := png.DecodeConfig(bytes.NewReader(file))
		if err != nil || c.Width != int(p.width) || len(file) > maxPicture {
			t.Errorf("%s has %d bytes, is %d pixels wide, %v", p.name, len(file), c.Width, err)
		}
		if !strings.Contains(string(text), "("+p.name+")") {
			t.Errorf("docs/page.md does not show %s", p.name)
		}
	}
}

// scene is a small data centre: its databases work hard, one disk is missing.
const scene = `ignore-errors: true
targets:
  - name: iqn.2026-11.com.example:db
    alias: Databases
    luns:
      - {lun: 1, backend: ram, size: 64MiB}
      - {lun: 2, backend: ram, size: 64MiB}
      - {lun: 3, backend: ram, size: 64MiB}
  - name: iqn.2026-11.com.example:vm
    alias: Virtual machines
    luns:
      - {lun: 1, backend: ram, size: 64MiB}
      - {lun: 2, backend: ram, size: 64MiB, read-only: true}
      - {lun: 3, path: /srv/vm/archive.img}
`

// takePictures has the scene at work for a while, with upgrades, and takes pictures.
func takePictures(t *testing.T) {
	d := start(t, scene)
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	work := func(target, host string, lun uint16, rate float64, read int) *initiator.Session {
		s := d.login(t, "iqn.2026-11.com.example:"+target, "iqn.1993-08.org.debian:01:"+host, host)
		if err := s.Settle(t.Context(), initiator.LUN(lun)); err != nil {
			t.Fatal(err)
		}
		working.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				load := initiator.Load{
					Sessions: []*initiator.Session{s}, LUN: initiator.LUN(lun), Blocks: 100000, BlockSize: 512, Bytes: 16384, ReadPercent: read,
					Rate: rate * (1 + 0.6*float64(n*7%5)/5), Duration: 3 * time.Second,
				}
				if _, err := load.Run(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		return s
	}
	reserve(t, work("db", "db1", 1, 300, 70), 1)
	work("db", "db2", 2, 120, 30)
	work("db", "backup", 3, 40, 100)
	work("vm", "kvm1", 1, 90, 50)
	work("vm", "kvm2", 2, 60, 100)
	b := open(t, d.page)
	b.live()
	for range 3 {
		if _, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portal, TargetName: "iqn.2026-11.com.example:old"}); err == nil {
			t.Fatal("a login to a target that is not there")
		}
	}
	for range 4 {
		time.Sleep(25 * time.Second) // for the graphs
		d.upgrade(t)
	}
	b.waitFor("document.getElementById('fact-generation').textContent === '5'")
	for _, p := range pictures {
		b.do(chromedp.EmulateViewport(p.width, 800), inScheme(p.scheme))
		value[bool](b, fmt.Sprintf("document.getElementById(%q).scrollIntoView(%v); true", p.top, p.top != "main"))
		if p.top == "main" {
			value[bool](b, "scrollTo(0, 0); true")
		}
		n := value[string](b, "document.getElementById('fact-commands').textContent")
		b.waitFor(fmt.Sprintf("document.getElementById('fact-commands').textContent !== %q", n)) // all is drawn again
		picture := get(b, chromedp.CaptureScreenshot())
		if err := os.WriteFile(filepath.Join("../../docs", p.name), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	working.Wait()
}
