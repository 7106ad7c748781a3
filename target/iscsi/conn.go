// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
)

// conn is one connection of an initiator, with what its login and its session are. Its fields belong
// to the reading goroutine.
type conn struct {
	transport
	engine *engine

	memory    *account.Account // of the login; closed when that is over
	spare     *account.Account // beside it, see [account.Account.Spare]
	loginHeld int64            // bytes of text of the login that are on it
	login     *login.Login     // nil in full feature phase
	sess      *session         // nil during login
	filling   placement
	quiet     bool // its end is no line of the log
}

// newConn returns a connection that takes sock over. Whoever handles its PDUs makes its input ready.
func newConn(e *engine, sock *socket.Socket, group uint16) *conn {
	c := &conn{
		transport: transport{
			freeze: &e.freeze, log: e.log, sock: sock, group: group, born: boottime.Of(time.Now()),
			remote:  sock.Remote(),
			done:    make(chan struct{}),
			closing: make(chan struct{}),
		},
		engine: e,
		login:  new(login.Login),
	}
	c.memory = e.memory.Open("address " + c.origin().String())
	c.pool = e.pool.For(c.memory)
	c.spare = c.memory.Spare(stream.ChunkSize)
	c.out.Init((*writer)(c), writes{sock, &e.sys}, rankOutput)
	c.out.SetAccount(c.memory)
	c.agree(login.Agreed{SendLimit: login.DefaultSegment, ReceiveLimit: login.DefaultSegment})
	return c
}

// chargeSession makes the session pay for the connection from now on.
func (c *conn) chargeSession() {
	c.pool = c.sess.pool
	c.in.SetPools(c.pool, c.sess.chunks)
	c.out.SetAccount(c.sess.memory)
	c.closeAccount()
}

// closeAccount gives up what the connection has had for its login.
func (c *conn) closeAccount() {
	c.memory.Release(c.loginHeld)
	c.loginHeld = 0
	c.memory.Close()
	c.spare.Close()
}

// writer is the connection as its output sees it; it is a [stream.Owner].
type writer conn

func (w *writer) Stopped() error { return w.stopped() }

func (w *writer) Numbers() (exp, maximum uint32) { return w.sess.window.Numbers() }

func (w *writer) Written() {
	if w.sess != nil {
		w.engine.work.Kick(&w.sess.queue)
	}
}

func (w *writer) Ended(err error) {
	if err == nil {
		err = errLoggedOut
	}
	w.close(err)
}

// letGo ends what is left of a closed connection.
func (c *conn) letGo() {
	c.in.Release()
	c.out.Discard()
	c.sock.Close()
	c.closeAccount()
	close(c.done)
}

// retire lets go of the connection after its session has moved to a
// successor: the file descriptor is closed, the TCP connection goes on.
func (c *conn) retire() {
	c.once.Do(func() {
		c.ended = errFrozen
		c.move(connClosed)
	})
	c.in.Drop()
	c.letGo()
}
