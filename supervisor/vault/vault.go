// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// maxClients bounds the clients that are told of refusals at a time: a few generations.
const maxClients = 16

// Options say how a vault is. The zero value keeps nothing.
type Options struct {
	// Max bounds the descriptors that are kept.
	Max int
	// Refused is told of what was not kept, and why; nil means nobody is. It must not call the Vault.
	Refused func(name string, err error)
}

// A Vault keeps descriptors. Its methods may be called from any goroutine.
type Vault struct {
	o     Options
	inner int      // the clients' end of the door
	outer *os.File // the vault's end
	epoll *os.File // watches for hang-ups
	work  sync.WaitGroup

	mu      sync.Mutex // protects what follows, and a request from its receipt to its end
	kept    table
	clients map[uint64]*client // by cookie
	refused int
	buf     []byte
	oob     []byte
}

// A client is one whose HELLO was accepted.
type client struct {
	cookie   uint64
	fd       int    // where it is answered
	position uint64 // by which epoll names it
}

// Counts are what a vault has.
type Counts struct {
	Held    int            // descriptors that are kept
	Max     int            // and how many there may be
	Names   map[string]int // descriptors by name
	Refused int            // descriptors and requests that were refused
}

// New makes a vault and its door.
func New(o Options) (*Vault, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("can't make the vault: %w", err)
	}
	return open(o, fds[0], fds[1])
}

// open makes a vault that is empty. It closes the door's ends if it can't.
func open(o Options, inner, outer int) (*Vault, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(epoll, true) // so that Go's poller waits for it
	}
	if err != nil {
		closeAll([]int{inner, outer})
		return nil, fmt.Errorf("can't make the vault: %w", err)
	}
	v := &Vault{
		o: o, inner: inner, outer: os.NewFile(uintptr(outer), "vault"), epoll: os.NewFile(uintptr(epoll), "vault's epoll"),
		kept: newTable(), clients: map[uint64]*client{},
		buf: make([]byte, requestHeader+maxName+1), oob: make([]byte, unix.CmsgSpace(4)),
	}
	return v, nil
}

// Serve begins to answer. Close ends it.
func (v *Vault) Serve() {
	v.work.Go(func() { poll(v.outer, v.hear) })
	v.work.Go(func() { poll(v.epoll, v.sweep) })
}

// poll calls f each time f may have something to do, until the file is closed or f has returned
// false.
func poll(file *os.File, f func(fd int) bool) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool { return !f(int(fd)) })
}

// Door returns the clients' end, which a generation is to inherit. It is the vault's own.
func (v *Vault) Door() int { return v.inner }

// Counts returns what the vault has.
func (v *Vault) Counts() Counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Counts{len(v.kept.byID), v.o.Max, maps.Clone(v.kept.names), v.refused}
}

// Discard hangs up all that is kept, as when the service has been stopped and nobody is to go on with it,
// and returns how many those were.
func (v *Vault) Discard() int {
	v.hear(v.outerFD()) // what has been sent before is discarded as well
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.discardLocked()
}

func (v *Vault) discardLocked() int {
	n := len(v.kept.byID)
	for _, e := range v.kept.byID {
		e.hangUp()
		v.removeLocked(e)
	}
	return n
}

// outerFD is -1 if the vault is closed.
func (v *Vault) outerFD() int { return descriptor.Number(v.outer) }

// Close discards all that is kept, and the door.
func (v *Vault) Close() {
	v.Discard()
	_ = v.outer.Close()
	_ = v.epoll.Close()
	v.work.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.discardLocked() // what has come in between
	for _, c := range v.clients {
		v.partLocked(c)
	}
	_ = unix.Close(v.inner)
}

// hear deals with all requests that have come, and reports whether there can be more.
func (v *Vault) hear(fd int) bool {
	for {
		if more, again := v.hearOne(fd); !more {
			return again
		}
	}
}

// hearOne deals with one request. It holds the mutex from before the receipt, so that Keep finds none
// that has left the queue and is not kept yet.
func (v *Vault) hearOne(fd int) (more, again bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	message, fds, cut, err := receive(fd, v.buf, v.oob)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, true
	case err != nil:
		return false, false
	case len(message) == 0 && len(fds) == 0 && !cut:
		return false, false // nobody has the other end
	}
	defer func() { closeAll(fds) }()
	var r request
	err = r.parse(message)
	if err == nil && cut {
		err = errCut(&r)
	}
	if err == nil {
		fds, err = v.doLocked(&r, fds)
	}
	if err != nil {
		v.refuseLocked(&r, err)
	}
	return true, true
}

// errCut says why a message has come without its descriptors.
func errCut(r *request) error {
	if r.op != opPut && r.op != opHello {
		return errors.New("the request is too long, or comes with descriptors")
	}
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return fmt.Errorf("the descriptor could not be received: there was more than one, or the supervisor has as many as it may (RLIMIT_NOFILE is %d: raise LimitNOFILE= of the unit)", limit.Cur)
}

// doLocked does what a request asks for, and returns the descriptors that it has no use for.
func (v *Vault) doLocked(r *request, fds []int) ([]int, error) {
	want := 0
	if r.op == opHello || r.op == opPut {
		want = 1
	}
	if len(fds) != want {
		return fds, fmt.Errorf("a request of kind %d came with %d descriptors, not %d", r.op, len(fds), want)
	}
	switch r.op {
	case opHello:
		return v.welcomeLocked(fds)
	case opPut:
		return v.putLocked(r, fds)
	case opDrop:
		if e := v.kept.byID[r.id]; e != nil {
			v.removeLocked(e)
		}
	case opList:
		v.listLocked(r)
	}
	return nil, nil
}

func (v *Vault) welcomeLocked(fds []int) ([]int, error) {
	cookie, err := cookieOf(fds[0])
	if err != nil {
		return fds, fmt.Errorf("HELLO comes with what is no socket: %w", err)
	}
	c := &client{cookie, fds[0], v.kept.nextPosition()}
	if len(v.clients) >= maxClients {
		err := fmt.Errorf("the vault has %d clients, which is the bound", maxClients)
		v.sendLocked(c, &answer{kind: ansRefused, rest: []byte(err.Error())})
		return fds, err
	}
	if err := v.watchLocked(c.fd, c.position); err != nil {
		return fds, err
	}
	v.clients[cookie] = c
	v.sendLocked(c, &answer{kind: ansWelcome, value: uint64(v.o.Max)})
	return nil, nil
}

func (v *Vault) putLocked(r *request, fds []int) ([]int, error) {
	before := v.kept.byID[r.id]
	if before == nil && len(v.kept.byID) >= v.o.Max {
		return fds, fmt.Errorf("the vault is full: it keeps %d descriptors, which is the bound", v.o.Max)
	}
	e := &entry{id: r.id, name: r.name, fd: fds[0], position: v.kept.nextPosition()}
	if err := v.watchLocked(e.fd, e.position); err != nil {
		return fds, err
	}
	if before != nil {
		v.removeLocked(before)
	}
	v.kept.add(e)
	return nil, nil
}

// watchLocked has sweep told when a descriptor hangs up. What epoll can't watch, such as a memory
// file, never does.
func (v *Vault) watchLocked(fd int, position uint64) error {
	// EPOLLHUP and EPOLLERR are reported without being asked for (epoll_ctl(2)).
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(uint32(position)), Pad: int32(uint32(position >> 32))}
	err := v.epollCtl(unix.EPOLL_CTL_ADD, fd, &event)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't watch the descriptor: %w", err)
	}
	return nil
}

func (v *Vault) epollCtl(op, fd int, event *unix.EpollEvent) error {
	return control(v.epoll, func(epoll int) error { return unix.EpollCtl(epoll, op, fd, event) })
}

// removeLocked lets go of a descriptor. The watch goes first: it would outlive the descriptor
// while another process holds the same socket (epoll(7), Q6).
func (v *Vault) removeLocked(e *entry) {
	_ = v.epollCtl(unix.EPOLL_CTL_DEL, e.fd, nil)
	v.kept.remove(e)
	_ = unix.Close(e.fd)
}

// partLocked lets go of a client.
func (v *Vault) partLocked(c *client) {
	_ = v.epollCtl(unix.EPOLL_CTL_DEL, c.fd, nil)
	delete(v.clients, c.cookie)
	_ = unix.Close(c.fd)
}

// sweep lets go of what has hung up.
func (v *Vault) sweep(epoll int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(epoll, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err == nil
		}
		for _, event := range events[:n] {
			position := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
			if e := v.kept.at(position); e != nil {
				v.removeLocked(e)
			}
			for _, c := range v.clients {
				if c.position == position {
					v.partLocked(c)
				}
			}
		}
	}
}

// listLocked answers with one page.
func (v *Vault) listLocked(r *request) {
	c := v.clients[r.client]
	if c == nil {
		return
	}
	a := answer{kind: ansPage, tag: r.tag, value: r.id}
	var fds []int
	for _, e := range v.kept.from(r.id) {
		if e.gone || r.name != "" && e.name != r.name {
			continue
		}
		if len(fds) == pageFiles {
			a.more = true
			break
		}
		a.rest = appendEntry(a.rest, e.id, e.name)
		a.value = e.position
		fds = append(fds, e.fd)
	}
	v.sendLocked(c, &a, fds...)
}

// refuseLocked tells the sender, if it is a client, and whoever wants to know.
func (v *Vault) refuseLocked(r *request, err error) {
	v.refused++
	if v.o.Refused != nil {
		v.o.Refused(r.name, err)
	}
	if c := v.clients[r.client]; c != nil {
		reason := err.Error()
		v.sendLocked(c, &answer{kind: ansRefused, value: r.id, rest: []byte(reason[:min(len(reason), maxReason)])})
	}
}

// sendLocked answers a client, and parts from one that can't be answered: it takes the end of
// its socket for the loss of the vault.
func (v *Vault) sendLocked(c *client, a *answer, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	err := unix.Sendmsg(c.fd, a.append(nil), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err != nil && v.clients[c.cookie] == c {
		v.partLocked(c)
	}
}
