// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io"
	"net/http"
	"strings"
)

//go:embed page.html page.css page.js icon.svg
var files embed.FS

// Bounds on those who look.
const (
	maxAnswers = 4  // documents that are made or sent at the same time; more are refused
	maxStreams = 16 // streams of events; more are refused
)

// layout is the document. What is put into it is escaped by where it stands.
var layout = template.Must(template.ParseFS(files, "page.html"))

// version tells one page from another: what is embedded, and what the columns are.
var version = func() string {
	h := sha256.New()
	for _, name := range []string{"page.html", "page.css", "page.js", "icon.svg"} {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is part of the program
		}
		h.Write(text)
	}
	for i := range tables {
		for _, c := range tables[i].Columns {
			io.WriteString(h, tables[i].ID+c.Title+string(c.Kind)+"\n")
		}
	}
	for _, f := range facts {
		io.WriteString(h, f.ID+"\n")
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}()

// policy lets the page have its own style, script and events, and nothing of anybody else. Scripts
// can't make markup of text (Trusted Types).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Handler answers at the page's own paths. Addresses in it are relative, so that a proxy can
// have it below another one.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.document)
	mux.HandleFunc("GET /events", p.events)
	for name, kind := range map[string]string{"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			http.ServeFileFS(w, r, files, name)
		})
	}
	return guard(mux)
}

// guard says to browsers what may be done with an answer, and to whose pages it is given.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		next.ServeHTTP(w, r)
	})
}

// filled is a table with its rows.
type filled struct {
	table
	Rows []row
	Left int
}

// stated is a fact with its figure.
type stated struct {
	fact
	Cell cell
}

// content is what the document is made of.
type content struct {
	Version string
	Time    string // when the sample was taken
	Facts   []stated
	Tables  []filled
}

// Class is what a column is shown as.
func (c *column) Class() string {
	class := string(c.Kind)
	if c.Wide {
		class += " wide"
	}
	if c.Extra {
		class += " extra"
	}
	return class
}

// document answers with the whole page.
func (p *Page) document(w http.ResponseWriter, _ *http.Request) {
	select {
	case p.answers <- struct{}{}:
		defer func() { <-p.answers }()
	default:
		busy(w, "Others are being answered now. Load the page again.")
		return
	}
	var b bytes.Buffer
	if err := layout.Execute(&b, p.content()); err != nil {
		http.Error(w, "The page can't be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w) // whoever has gone needs no answer
}

// busy refuses for now.
func busy(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, why, http.StatusServiceUnavailable)
}

// content is the state at the last sample.
func (p *Page) content() *content {
	p.mu.Lock()
	v := p.viewLocked()
	p.mu.Unlock()
	c := &content{Version: version, Time: moment(v.at)}
	for i, f := range facts {
		c.Facts = append(c.Facts, stated{f, v.facts[i]})
	}
	for i, t := range tables {
		c.Tables = append(c.Tables, filled{t, v.tables[i], v.left[i]})
	}
	return c
}

// foreign tells whether another site's page asks. Such a page can't read the answer, and is not to
// take up streams.
func foreign(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Sec-Fetch-Site"), "cross-site")
}
