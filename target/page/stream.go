// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	// retry is how soon, in ms, a browser connects again after a stream has ended: at once, since
	// as a rule that is an upgrade.
	retry = 300
	// writeTimeout is how long a browser may take to read a message.
	writeTimeout = 10 * time.Second
	// fresh is how old the last message of a browser may be that needs no new graphs.
	fresh = 10 * time.Second
)

// events sends the state, and then what changes, until the browser or this process leaves.
// A browser that could not follow gets the whole state again.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if foreign(r) {
		http.Error(w, "This is for the page at / alone.", http.StatusForbidden)
		return
	}
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		busy(w, fmt.Sprintf("%d others look at this page now: close one of theirs, or load the page again to see what has changed.", maxStreams))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would keep it back
	if r.Method == http.MethodHead {
		return
	}
	c := http.NewResponseController(w)
	if err := p.send(w, c, "retry: %d\n\n", retry); err != nil || p.closed() {
		return
	}
	p.watch(1)
	defer p.watch(-1)
	seen, past := uint64(0), !recent(r.Header.Get("Last-Event-ID"))
	for {
		m := p.next(seen, past)
		if err := p.send(w, c, "id: %d\ndata: %s\n\n", m.at, m.text); err != nil {
			return
		}
		seen, past = m.tick, false
		select {
		case <-m.changed:
		case <-p.ending:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// closed tells whether a successor is to be asked.
func (p *Page) closed() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// recent tells whether a browser has had a message not long ago, from this process or the one before: it
// has drawn its graphs up to then.
func recent(id string) bool {
	ms, err := strconv.ParseInt(id, 10, 64)
	return err == nil && time.Since(time.UnixMilli(ms)).Abs() < fresh
}

func (p *Page) send(w http.ResponseWriter, c *http.ResponseController, format string, values ...any) error {
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout)) // what can't be set has none
	if _, err := fmt.Fprintf(w, format, values...); err != nil {
		return err
	}
	return c.Flush()
}

// watch counts the streams.
func (p *Page) watch(n int) {
	p.mu.Lock()
	p.watched += n
	p.mu.Unlock()
}

// sent is a message for one stream.
type sent struct {
	text    []byte
	at      int64  // ms since 1970
	tick    uint64 // number of the sample
	changed chan struct{}
}

// next is the message for a stream that has had that sample.
func (p *Page) next(seen uint64, past bool) sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := sent{at: p.viewLocked().at.UnixMilli(), tick: p.tick, changed: p.changed, text: p.patch}
	if seen == 0 || seen != p.tick-1 || p.patch == nil {
		m.text = p.messageLocked(nil, past)
	}
	return m
}
