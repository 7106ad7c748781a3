// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/supervisor/service"
)

// rounds is how often each way of TestNobodyIsRefused reloads the service, kills
// it and now and then stops it; a hundred logins or more go with each.
var rounds = flag.Int("rounds", 5, "reloads, and kills, in each part of TestNobodyIsRefused")

const (
	loginsInRound = 100
	clients       = 4
	// stopEvery is in how many of the rounds the service is stopped, and
	// started only when every client waits for it.
	stopEvery = 5
)

// TestNobodyIsRefused has initiators log in to gotgtd, one after the other,
// while it is replaced, killed with SIGKILL and stopped. None is refused, and
// none but those whose process was killed or stopped under them is cut off.
func TestNobodyIsRefused(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *programs) string{
		"bound by upgraded": func(t *testing.T, p *programs) string {
			p.run()
			return p.untilServing(0).Sockets[0].Address
		},
		"bound by systemd-socket-activate": startActivated,
	} {
		t.Run(name, func(t *testing.T) {
			p := buildPrograms(t)
			c := newCrowd(t, start(t, p))
			for round := range *rounds {
				c.disturb(p, round)
			}
			c.finish()
			p.checkRSS()
		})
	}
}

// startActivated has systemd-socket-activate start upgraded on the first
// connection, and waits for that to be served.
func startActivated(t *testing.T, p *programs) string {
	t.Helper()
	// The program wants a port; it is a free one, unless another process
	// takes it in between.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p.start(append([]string{"systemd-socket-activate", "--listen=" + addr, "--fdname=iscsi"}, p.args()...)...)
	late := time.After(2 * time.Minute)
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			p.untilServing(0)
			return addr
		}
		select {
		case <-late:
			t.Fatalf("systemd-socket-activate does not listen: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// crowd is clients that log in all the time.
type crowd struct {
	t       *testing.T
	addr    string
	stop    context.CancelFunc
	clients sync.WaitGroup

	connected, served, cutOff atomic.Int64
	kills, stops              int64
}

func newCrowd(t *testing.T, addr string) *crowd {
	ctx, stop := context.WithCancel(t.Context())
	c := &crowd{t: t, addr: addr, stop: stop}
	for range clients {
		c.clients.Go(func() {
			for ctx.Err() == nil {
				c.login()
			}
		})
	}
	t.Cleanup(func() { stop(); c.clients.Wait() })
	return c
}

// login makes one connection and opens a discovery session on it.
func (c *crowd) login() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		c.t.Errorf("a connection is refused: %v", err)
		c.stop()
		return
	}
	c.connected.Add(1)
	s, err := initiator.Dial(ctx, initiator.Options{
		Address: c.addr, Discovery: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	})
	switch {
	case err == nil:
		c.served.Add(1)
		_ = s.Close()
	case errors.Is(err, context.DeadlineExceeded):
		c.t.Errorf("a connection is not served: %v", err)
	default:
		c.cutOff.Add(1)
	}
}

// disturb reloads the service, kills it, and in some rounds stops it.
func (c *crowd) disturb(p *programs, round int) {
	c.t.Helper()
	goal := c.served.Load() + loginsInRound
	st := p.do("reload").Status
	if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.kills++
	p.untilServing(st.Main.PID)
	if round%stopEvery == 0 {
		p.do("stop") // ends the logins that are under way
		c.stops++
		c.await("every client waits", func() bool {
			return c.connected.Load()-c.served.Load()-c.cutOff.Load() == clients
		})
		p.do("restart")
	}
	c.await("enough logins", func() bool { return c.served.Load() >= goal })
}

func (c *crowd) await(what string, ok func() bool) {
	c.t.Helper()
	late := time.After(2 * time.Minute)
	for !ok() && !c.t.Failed() {
		select {
		case <-late:
			c.t.Fatalf("it does not come to it that %s: %d connections, %d served, %d cut off",
				what, c.connected.Load(), c.served.Load(), c.cutOff.Load())
		case <-time.After(time.Millisecond):
		}
	}
}

// finish ends the crowd, and holds the numbers against those of the kills and stops.
func (c *crowd) finish() {
	c.t.Helper()
	c.stop()
	c.clients.Wait()
	connected, served, cutOff := c.connected.Load(), c.served.Load(), c.cutOff.Load()
	c.t.Logf("%d connections, none refused, %d served, %d cut off by one of %d kills and %d stops", connected, served, cutOff, c.kills, c.stops)
	if served < c.kills*loginsInRound || cutOff > (c.kills+c.stops)*clients || served+cutOff != connected {
		c.t.Errorf("%d connections, %d served, %d cut off by %d kills and %d stops", connected, served, cutOff, c.kills, c.stops)
	}
}

// do is ask for a verb that must succeed.
func (p *programs) do(verb string) service.Result {
	p.t.Helper()
	result, err := p.ask(verb)
	if err != nil {
		p.t.Fatalf("%s: %v", verb, err)
	}
	return result
}
