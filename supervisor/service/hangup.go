// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// hangups reports stored descriptors whose other end is gone: EPOLLHUP or
// EPOLLERR, which epoll(7) reports without being asked.
type hangups struct {
	epoll int
	wake  int // eventfd(2) that ends the loop
	gone  chan<- *storedFile
	stop  chan struct{}
	done  chan struct{}

	mu    sync.Mutex // protects what follows
	next  int32
	files map[int32]*storedFile
}

// watchHangups starts the watcher. It sends to gone until close.
func watchHangups(gone chan<- *storedFile) (*hangups, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("can't watch stored descriptors: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: 0})
	}
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("can't watch stored descriptors: %w", err)
	}
	h := &hangups{
		epoll: epoll, wake: wake, gone: gone,
		stop: make(chan struct{}), done: make(chan struct{}),
		next: 1, files: map[int32]*storedFile{},
	}
	go h.run()
	return h, nil
}

// watch begins to watch f. What epoll can't watch, such as a memfd, never
// hangs up.
func (h *hangups) watch(f *storedFile) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := h.next
	h.next++
	err := kernel.Control(f.file, func(fd int) error {
		return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: key})
	})
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err == nil {
		h.files[key] = f
	}
	return err
}

// forget ends the watch, which must be before f is closed.
func (h *hangups) forget(f *storedFile) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, have := range h.files {
		if have != f {
			continue
		}
		_ = kernel.Control(f.file, func(fd int) error {
			return unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, fd, nil)
		})
		delete(h.files, key)
	}
}

func (h *hangups) run() {
	defer close(h.done)
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(h.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == 0 {
				return
			}
			h.mu.Lock()
			f := h.files[e.Fd]
			h.mu.Unlock()
			if f == nil {
				continue
			}
			select {
			case h.gone <- f:
			case <-h.stop:
				return
			}
		}
	}
}

// close ends the watcher and waits for it.
func (h *hangups) close() {
	close(h.stop)
	one := [8]byte{1}
	_, _ = unix.Write(h.wake, one[:])
	<-h.done
	_ = unix.Close(h.epoll)
	_ = unix.Close(h.wake)
}

// takeUp stores files that come from an earlier store. What the store refuses,
// it closes.
func (s *fdStore) takeUp(files []*os.File, poll bool) error {
	var errs []error
	for _, f := range files {
		if err := s.add(f.Name(), f, poll); err != nil {
			_ = f.Close()
			errs = append(errs, fmt.Errorf("descriptor %q not taken up: %w", f.Name(), err))
		}
	}
	return errors.Join(errs...)
}
