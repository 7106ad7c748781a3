// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
)

// NewNode returns a Node that serves nothing yet.
func NewNode(o Options) *Node {
	n := &Node{
		opt:      o.withDefaults(),
		sys:      realSystem,
		targets:  make(map[string]*Target),
		sessions: make(map[uint16]*session),
		apart:    make(map[uint16]*session),
		conns:    make(map[*conn]struct{}),
		origins:  make(map[netip.Prefix]int),
		stop:     make(chan struct{}),
	}
	n.memory = account.New(n.opt.Limits.Memory, n.opt.Limits.Sessions+n.opt.Limits.DiscoverySessions+n.opt.Limits.Logins)
	n.seats, n.leaveSeats = socket.SharedSeats()
	n.log = limit.Logger(n.opt.Log) // all of its lines initiators can cause
	n.tasks.New = func() any { return new(task) }
	n.work.Init(n.opt.Workers, rankQueue, &n.freeze)
	n.guesses.SetDelays(guess.Within(n.opt.Limits.LoginTimeout))
	n.mu.SetRank(rankNode)
	n.wait.mu.SetRank(rankQueue)
	n.freeze.init(&n.mu)
	n.wg.Add(2)
	go n.liveness()
	go n.lendMemory()
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
	c := newConn(n, sock, group)
	if err := n.addConn(c); err != nil {
		c.closeAccount()
		sock.Close()
		return err
	}
	go c.run()
	return nil
}

// run is the reading goroutine: it lives as long as the connection.
func (c *conn) run() {
	defer c.node.removeConn(c)
	if c.sess != nil && c.sess.apart != nil {
		<-c.sess.apart.done
	}
	for {
		err := c.serve()
		if errors.Is(err, errFrozen) {
			if c.node.freeze.park() {
				continue // thawed
			}
			c.retire()
			return
		}
		c.close(err)
		break
	}
	c.logEnd()
	c.in.Drop()
	if c.sess != nil {
		c.sess.connectionLost(c)
	}
	c.letGo()
}

func (c *conn) logEnd() {
	level := slog.LevelInfo
	attrs := []any{"remote", c.remote.String(), "reason", c.ended}
	if c.sess != nil {
		attrs = append(attrs, "initiator", c.sess.initiator, "target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
	}
	if errors.Is(c.ended, errLoggedOut) || c.quiet {
		level = slog.LevelDebug
	}
	c.node.log.Log(context.Background(), level, "connection closed", attrs...)
}
