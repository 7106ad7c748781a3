// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sendTimeout bounds how long a full queue of the vault may hold up a client.
	sendTimeout = 5 * time.Second
	// openTimeout bounds the wait for the vault's WELCOME.
	openTimeout = 5 * time.Second
)

// ErrGone is why a client can't use the vault any more: the supervisor has ended, or keeps none.
var ErrGone = errors.New("the supervisor keeps no descriptors any more")

// ClientOptions say how a client is. The zero value is valid.
type ClientOptions struct {
	// Refused is told of a descriptor that the vault could not keep, and why. It must not
	// call the Client. Nil means nobody is told.
	Refused func(id uint64, err error)
}

// A Client is how a generation uses the vault. Its methods may be called from any goroutine.
type Client struct {
	door     *os.File
	answers  *os.File
	cookie   uint64
	refused  func(uint64, error)
	work     sync.WaitGroup
	gone     chan struct{} // closed when there are no more answers
	welcome  chan struct{} // closed with the first answer
	max      int           // valid after welcome
	listing  sync.Mutex    // held for one List at a time, before mu
	mu       sync.Mutex    // protects what follows
	rejected error         // why the vault wants no more clients
	tag      uint32        // of the last LIST
	pages    chan page     // where its answer goes
}

// Kept is a descriptor that the vault has.
type Kept struct {
	ID   uint64
	Name string
	FD   int // close-on-exec, and the caller's
}

// page is the answer to a LIST.
type page struct {
	kept     []Kept
	position uint64
	more     bool
	err      error
}

// Open makes a client of the vault behind a door. The door is used until Close and stays the caller's.
func Open(ctx context.Context, door *os.File, o ClientOptions) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("can't open the vault: %w", err)
	}
	defer unix.Close(fds[1])
	c := &Client{
		door: door, answers: os.NewFile(uintptr(fds[0]), "vault"), refused: o.Refused,
		gone: make(chan struct{}), welcome: make(chan struct{}),
	}
	c.work.Go(c.read)
	if c.cookie, err = cookieOf(fds[1]); err == nil {
		err = c.send(&request{op: opHello}, fds[1])
	}
	if err == nil {
		select {
		case <-c.welcome:
			return c, nil
		case <-c.gone:
			err = c.lost()
		case <-ctx.Done():
			err = fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
	_ = c.Close()
	return nil, fmt.Errorf("can't open the vault: %w", err)
}

// lost is why there are no more answers.
func (c *Client) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejected != nil {
		return c.rejected
	}
	return ErrGone
}

// Max is how many descriptors the vault keeps at the most, of all clients together.
func (c *Client) Max() int { return c.max }

// Gone is closed when the vault can't be used any more. What was in it is lost.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Close ends the client. What it has put into the vault stays there.
func (c *Client) Close() error {
	err := c.answers.Close()
	c.work.Wait()
	return err
}

// ID returns the cookie of a socket, under which the vault keeps it.
func ID(conn syscall.Conn) (id uint64, err error) {
	err = control(conn, func(fd int) (err error) {
		id, err = cookieOf(fd)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("can't get the cookie of a socket: %w", err)
	}
	return id, nil
}

// Put leaves a descriptor with the vault under a name (see notify.CheckName). From its return
// on the vault has it, whatever happens to this process, unless Refused is told otherwise.
func (c *Client) Put(id uint64, name string, conn syscall.Conn) error {
	r := request{op: opPut, id: id, name: name}
	if err := r.check(); err != nil {
		return fmt.Errorf("can't leave a descriptor with the supervisor: %w", err)
	}
	err := control(conn, func(fd int) error { return c.send(&r, fd) })
	if err != nil {
		return fmt.Errorf("can't leave descriptor %q with the supervisor: %w", name, err)
	}
	return nil
}

// Drop has the vault close a descriptor. The process's own stays open.
func (c *Client) Drop(id uint64) error {
	if err := c.send(&request{op: opDrop, id: id}); err != nil {
		return fmt.Errorf("can't have the supervisor close a descriptor: %w", err)
	}
	return nil
}

// HangUp ends a connection that the vault has as well. It is shut down first: the close(2) of one
// holder tells the peer nothing while there is another one. conn stays the caller's to close.
func (c *Client) HangUp(id uint64, conn syscall.Conn) error {
	shut := control(conn, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
	if errors.Is(shut, unix.ENOTCONN) {
		shut = nil // the peer was faster
	}
	return errors.Join(shut, c.Drop(id))
}

// List returns what the vault has under a name or, if that is empty, at all. What all processes have sent
// before is taken into account. On an error nothing is returned.
func (c *Client) List(ctx context.Context, name string) ([]Kept, error) {
	c.listing.Lock()
	defer c.listing.Unlock()
	var all []Kept
	place := map[uint64]int{}
	for position := uint64(0); ; {
		p := c.list(ctx, name, position)
		for _, k := range p.kept {
			if i, twice := place[k.ID]; twice { // put anew between two pages
				_ = unix.Close(all[i].FD)
				all[i] = k
				continue
			}
			place[k.ID] = len(all)
			all = append(all, k)
		}
		if p.err != nil {
			closeKept(all)
			return nil, fmt.Errorf("can't get back what the supervisor keeps: %w", p.err)
		}
		if !p.more {
			return all, nil
		}
		position = p.position
	}
}

func closeKept(all []Kept) {
	for _, k := range all {
		_ = unix.Close(k.FD)
	}
}

// list asks for one page.
func (c *Client) list(ctx context.Context, name string, after uint64) page {
	pages := make(chan page, 1)
	c.mu.Lock()
	c.tag++ // that of a LIST which was given up is another one
	tag := c.tag
	c.pages = pages
	c.mu.Unlock()
	r := request{op: opList, tag: tag, id: after, name: name}
	err := r.check()
	if err == nil {
		err = c.send(&r)
	}
	if err != nil {
		return page{err: err}
	}
	select {
	case p := <-pages:
		return p
	case <-c.gone:
		err = c.lost()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.mu.Lock()
	c.pages = nil // what comes from now on is closed
	c.mu.Unlock()
	select {
	case p := <-pages:
		closeKept(p.kept)
	default:
	}
	return page{err: err}
}

// check is parse's look at what is to be sent.
func (r *request) check() error { return new(request).parse(r.append(nil)) }

// send sends a request. The door's blocking mode is shared by all of its holders, so it counts on
// neither: no call blocks, and the wait for room is a poll(2).
func (c *Client) send(r *request, fds ...int) error {
	r.client = c.cookie
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	message := r.append(make([]byte, 0, requestHeader+maxName))
	return control(c.door, func(door int) error {
		for late := time.Now().Add(sendTimeout); ; {
			err := unix.Sendmsg(door, message, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET):
				return ErrGone
			case errors.Is(err, unix.ETOOMANYREFS):
				return fmt.Errorf("more descriptors are under way than this process may have (RLIMIT_NOFILE): raise LimitNOFILE= of the unit: %w", err)
			case !errors.Is(err, unix.EAGAIN):
				return err
			}
			left := time.Until(late)
			if left <= 0 {
				return fmt.Errorf("the supervisor has taken nothing for %v: %w", sendTimeout, err)
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(door), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		}
	})
}

// read deals with the answers until the socket is closed on either side.
func (c *Client) read() {
	defer close(c.gone)
	buf, oob := make([]byte, maxAnswer+1), make([]byte, unix.CmsgSpace(4*pageFiles))
	poll(c.answers, func(fd int) bool {
		for {
			message, fds, cut, err := receive(fd, buf, oob)
			if errors.Is(err, unix.EAGAIN) {
				return true
			}
			if err != nil || len(message) == 0 {
				closeAll(fds)
				return false
			}
			c.handle(message, fds, cut)
		}
	})
}

// handle deals with an answer.
func (c *Client) handle(message []byte, fds []int, cut bool) {
	var a answer
	if a.parse(message) != nil {
		closeAll(fds)
		return
	}
	switch a.kind {
	case ansWelcome:
		closeAll(fds)
		select {
		case <-c.welcome:
		default:
			c.max = int(a.value)
			close(c.welcome)
		}
	case ansRefused:
		closeAll(fds)
		err := errors.New(string(a.rest))
		select {
		case <-c.welcome:
			if c.refused != nil {
				c.refused(a.value, err)
			}
		default:
			c.mu.Lock()
			c.rejected = err
			c.mu.Unlock()
		}
	case ansPage:
		c.turnPage(&a, fds, cut)
	default:
		closeAll(fds)
	}
}

// turnPage gives a page to the List that waits for it.
func (c *Client) turnPage(a *answer, fds []int, cut bool) {
	p := page{position: a.value, more: a.more}
	for rest := a.rest; len(rest) > 0 && p.err == nil; {
		var k Kept
		if k.ID, k.Name, rest, p.err = parseEntry(rest); p.err == nil && len(p.kept) < len(fds) {
			k.FD = fds[len(p.kept)]
			p.kept = append(p.kept, k)
		} else if p.err == nil {
			cut = true
			break
		}
	}
	if cut && p.err == nil {
		p.err = errors.New("this process can have no more descriptors (RLIMIT_NOFILE): raise LimitNOFILE= of the unit")
	}
	if p.err != nil {
		closeAll(fds)
		p.kept = nil
	} else {
		closeAll(fds[len(p.kept):])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pages == nil || c.tag != a.tag {
		closeKept(p.kept)
		return
	}
	c.pages <- p // it has room for one, and there is one with this tag
	c.pages = nil
}

// control runs f on conn's descriptor.
func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}
