// SPDX-License-Identifier: Apache-2.0

package target

import (
	"net"
	"os"
	"sync"
	"time"
)

// A pausable listener has a deadline, as a TCP listener does: its Accept returns an
// error that is a timeout while that lies in the past.
type pausable interface {
	net.Listener
	SetDeadline(time.Time) error
}

func pausableListener(l net.Listener) pausable {
	if p, ok := l.(pausable); ok {
		return p
	}
	return &relay{Listener: l, accepted: make(chan acceptance), closed: make(chan struct{}), pause: make(chan struct{})}
}

// relay makes any listener pausable. In a pause it may accept one more connection, which
// waits for the end of the pause.
type relay struct {
	net.Listener
	accepted  chan acceptance
	start     sync.Once
	accepting sync.WaitGroup
	closing   sync.Once
	closed    chan struct{}

	mu     sync.Mutex    // protects what follows
	pause  chan struct{} // closed during a pause
	paused bool
}

// acceptance is what Accept has returned.
type acceptance struct {
	conn net.Conn
	err  error
}

// SetDeadline begins a pause with a time in the past, and ends it with none.
func (r *relay) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch pause := !t.IsZero(); {
	case pause && !r.paused:
		close(r.pause)
		r.paused = true
	case !pause && r.paused:
		r.pause = make(chan struct{})
		r.paused = false
	}
	return nil
}

// Accept waits for a connection, or a pause.
func (r *relay) Accept() (net.Conn, error) {
	r.start.Do(func() { r.accepting.Go(r.acceptAll) })
	r.mu.Lock()
	pause := r.pause
	r.mu.Unlock()
	select {
	case <-pause:
		return nil, os.ErrDeadlineExceeded
	case <-r.closed:
		return nil, net.ErrClosed
	case a := <-r.accepted:
		return a.conn, a.err
	}
}

// acceptAll accepts until the relay is closed.
func (r *relay) acceptAll() {
	for {
		var a acceptance
		a.conn, a.err = r.Listener.Accept()
		select {
		case r.accepted <- a:
		case <-r.closed:
			if a.conn != nil {
				a.conn.Close()
			}
			return
		}
	}
}

// Close closes the listener, and a connection that waits.
func (r *relay) Close() error {
	var err error
	r.closing.Do(func() {
		close(r.closed)
		err = r.Listener.Close()
	})
	r.accepting.Wait()
	return err
}
