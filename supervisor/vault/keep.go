// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Saved is a vault that lies in the descriptors of a process whose program is replaced by execve(2).
// Fields are only ever added.
type Saved struct {
	Inner   int         `json:"inner"`
	Outer   int         `json:"outer"`
	Kept    []SavedFile `json:"kept"`
	Clients []int       `json:"clients"`
}

// SavedFile is a descriptor that is kept.
type SavedFile struct {
	ID   uint64 `json:"id"`
	Name string `json:"name"`
	FD   int    `json:"fd"`
}

// Keep makes the vault's descriptors outlive an execve(2), which has to follow. The vault stands still
// until then, so that no request is dealt with and forgotten; undo takes everything back.
func (v *Vault) Keep() (s *Saved, undo func()) {
	v.mu.Lock()
	s = &Saved{Inner: v.inner, Outer: v.outerFD()}
	for _, e := range v.kept.order {
		if !e.gone {
			s.Kept = append(s.Kept, SavedFile{e.id, e.name, e.fd})
		}
	}
	for _, c := range v.clients {
		s.Clients = append(s.Clients, c.fd)
	}
	setCloseOnExec(s.all(), 0)
	return s, func() {
		setCloseOnExec(s.all(), unix.FD_CLOEXEC)
		v.mu.Unlock()
	}
}

// all returns the numbers of all descriptors.
func (s *Saved) all() []int {
	all := append([]int{s.Inner, s.Outer}, s.Clients...)
	for _, f := range s.Kept {
		all = append(all, f.FD)
	}
	return all
}

func setCloseOnExec(fds []int, flag int) {
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

// Resume takes up a vault that Keep has saved. What is beyond the bound or can't be watched is let go
// of, and is in the error.
func Resume(o Options, s *Saved) (*Vault, error) {
	setCloseOnExec(s.all(), unix.FD_CLOEXEC)
	v, err := open(o, s.Inner, s.Outer)
	if err != nil {
		for _, f := range s.Kept {
			_ = unix.Close(f.FD)
		}
		closeAll(s.Clients)
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, f := range s.Kept {
		left, err := v.putLocked(&request{id: f.ID, name: f.Name}, []int{f.FD})
		closeAll(left)
		errs = append(errs, err)
	}
	for _, fd := range s.Clients {
		cookie, err := cookieOf(fd)
		c := &client{cookie, fd, v.kept.nextPosition()}
		if err == nil {
			err = v.watchLocked(fd, c.position)
		}
		if err != nil {
			_ = unix.Close(fd)
			errs = append(errs, err)
			continue
		}
		v.clients[cookie] = c
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	return v, errors.Join(errs...)
}
