// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// NewNode returns a Node that serves nothing yet.
func NewNode(o Options) *Node {
	n := &Node{
		targets:  make(map[string]*Target),
		sessions: sessionTable{byTSIH: make(map[uint16]*session)},
		conns:    connTable{all: make(map[*conn]struct{}), origins: make(map[netip.Prefix]int)},
		apart:    make(map[uint16]*session),
		stop:     make(chan struct{}),
	}
	n.mu.SetRank(rankNode)
	n.engine.init(o, &n.mu)
	n.seats, n.leaveSeats = socket.SharedSeats()
	n.guesses.SetDelays(guess.Within(n.opt.Limits.LoginTimeout))
	n.wg.Add(2)
	go n.liveness()
	go func() {
		defer n.wg.Done()
		n.wait.run(n.stop, &n.freeze)
	}()
	return n
}

// Serve takes over a connection that was accepted on a portal of the group
// tag and returns at once. The Node closes the connection in the end; on an
// error it has closed it already.
func (n *Node) Serve(nc *net.TCPConn, group uint16) error {
	if nc == nil {
		return errors.New("iscsi: there is no connection to serve")
	}
	sock, err := socket.New(n.seats, nc)
	if err != nil {
		nc.Close()
		return fmt.Errorf("iscsi: %w", err)
	}
	c := n.newConn(sock, group)
	if err := n.addConn(c); err != nil {
		n.tally.Closed(err)
		c.closeAccount()
		sock.Close()
		return err
	}
	go n.run(c)
	return nil
}

// newConn returns a connection that takes sock over, and whose PDUs the Node handles.
func (n *Node) newConn(sock *socket.Socket, group uint16) *conn {
	c := newConn(&n.engine, sock, group)
	c.in.Init(&reader{c, n}, sock, c.pool, n.pool.For(c.spare))
	return c
}

// run is the reading goroutine: it lives as long as the connection.
func (n *Node) run(c *conn) {
	defer n.removeConn(c)
	if c.sess != nil && c.sess.apart != nil {
		<-c.sess.apart.done
	}
	for {
		err := c.serve()
		if errors.Is(err, errFrozen) {
			if n.freeze.park() {
				continue // thawed
			}
			c.retire()
			return
		}
		c.close(err)
		break
	}
	n.logEnd(c)
	n.countEnd(c)
	c.in.Drop()
	if c.sess != nil {
		c.sess.connectionLost(&c.transport)
	}
	c.letGo()
}

// logEnd logs the end of a connection, that of a login which was refused with the names that the initiator has given.
func (n *Node) logEnd(c *conn) {
	attrs := []any{"remote", c.remote.String(), "reason", c.ended}
	if c.sess != nil {
		attrs = append(attrs, "initiator", c.sess.initiator, "target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
	} else if c.login != nil && c.login.Initiator != "" {
		attrs = append(attrs, "initiator", c.login.Initiator, "target", c.login.TargetName)
	}
	switch {
	case errors.Is(c.ended, errLoggedOut) || c.quiet:
		n.log.Debug("connection closed", attrs...)
	case c.login != nil && errors.As(c.ended, new(login.Error)):
		n.log.Warn("login refused", attrs...)
	default:
		n.log.Info("connection closed", attrs...)
	}
}

// countEnd counts the end of a connection, and of its login if that has begun and neither
// succeeded nor was refused.
func (n *Node) countEnd(c *conn) {
	n.tally.Closed(c.ended)
	if c.login != nil && c.login.Requests > 0 && !errors.As(c.ended, new(login.Error)) {
		n.countLogin(c.login.TargetName, tally.Incomplete)
	}
}
