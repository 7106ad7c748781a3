// SPDX-License-Identifier: Apache-2.0

// Package page shows a daemon's state to people, in a browser: targets, logical units,
// sessions, reservations and upgrades, with what was read and written in the last
// minutes. It changes nothing. docs/page.md says what there is to see.
//
// Go makes every text: the page is a whole document without JavaScript, and its script
// gets the same cells, those that have changed, as server-sent events.
package page

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/target/control"
)

// Options say what a Page shows.
type Options struct {
	// Status tells the state of the daemon. It is called every Interval, by one goroutine,
	// whether anybody looks or not: rates need two samples.
	Status func() control.Status
	// Interval is the time between two samples; zero: 2 s.
	Interval time.Duration
	// Past is what the predecessor's Page has told of its samples; nil for none. What can't be
	// read is left out: it is for graphs alone.
	Past []byte
}

const defaultInterval = 2 * time.Second

// A Page samples the state and shows it, until Close.
type Page struct {
	status   func() control.Status
	interval time.Duration
	streams  chan struct{} // holds an element for each stream of events
	answers  chan struct{} // holds an element for each document that is made or sent

	end    sync.Once
	ending chan struct{} // closed when streams and sampling are to end
	ended  chan struct{} // closed when sampling has

	mu      sync.Mutex // protects what follows
	last    *control.Status
	history history
	tick    uint64        // number of the last sample
	changed chan struct{} // closed at the next sample
	watched int           // streams
	view    *view         // of the last sample, nil as long as nobody has asked for it
	patch   []byte        // what has changed since the sample before, nil if nobody has asked for that
}

// New takes the first sample and goes on until Close.
func New(o Options) *Page {
	p := &Page{
		status: o.Status, interval: o.Interval,
		streams: make(chan struct{}, maxStreams), answers: make(chan struct{}, maxAnswers),
		ending: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}),
	}
	if p.interval <= 0 {
		p.interval = defaultInterval
	}
	p.history.restore(readPast(o.Past))
	p.sample()
	go p.run()
	return p
}

func (p *Page) run() {
	defer close(p.ended)
	t := time.NewTicker(p.interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.sample()
		case <-p.ending:
			return
		}
	}
}

// Close ends sampling and all streams of events: browsers connect again, and reach a successor that
// answers at the same socket.
func (p *Page) Close() {
	p.end.Do(func() { close(p.ending) })
	<-p.ended
}

// Past is what a successor's Page goes on from, so that its graphs do not begin anew: JSON.
func (p *Page) Past() []byte {
	p.mu.Lock()
	told := p.history.past()
	p.mu.Unlock()
	text, err := json.Marshal(told)
	if err != nil {
		return nil // its graphs begin anew
	}
	return text
}

// sample asks for the state and tells the streams.
func (p *Page) sample() {
	st := p.status()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.add(time.Now(), &st)
	before := p.view
	p.last, p.view, p.patch = &st, nil, nil
	p.tick++
	if p.watched > 0 && before != nil {
		p.patch = p.messageLocked(before, false)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// viewLocked is the state as it is shown.
func (p *Page) viewLocked() *view {
	if p.view == nil {
		p.view = newView(p.last, &p.history)
	}
	return p.view
}
