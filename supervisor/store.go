// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRights is how many descriptors the kernel passes in one message
	// (SCM_MAX_FD).
	maxRights = 253
	// storeTimeout bounds the wait for the service manager's barrier.
	storeTimeout = 5 * time.Second
	// maxNameLength is the length of a descriptor's name that systemd accepts.
	maxNameLength = 255
)

// A Stored is a file that an earlier process of the service had put into the
// service manager's descriptor store.
type Stored struct {
	Name string
	File *os.File
}

// CheckName reports whether name may name a descriptor: 1 to 255 printable
// ASCII characters and no colon, as sd_notify(3) has it under FDNAME.
func CheckName(name string) error {
	if name == "" || len(name) > maxNameLength {
		return fmt.Errorf("descriptor name %.20q has %d characters, not 1 to %d", name, len(name), maxNameLength)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 127 || c == ':' {
			return fmt.Errorf("descriptor name %q has the character %q in it", name, c)
		}
	}
	return nil
}

// Store gives copies of files to the service manager's descriptor store under
// one name. It returns when the manager has taken them up. The manager gives
// no error: what exceeds its bound it drops. The files stay in the store,
// also after a hang-up, until Unstore.
func (p *Process) Store(ctx context.Context, name string, files ...*os.File) error {
	if err := CheckName(name); err != nil {
		return err
	}
	for len(files) > 0 {
		n := min(len(files), maxRights)
		if err := p.sendFiles("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, files[:n]); err != nil {
			return fmt.Errorf("can't store descriptors %q: %w", name, err)
		}
		files = files[n:]
	}
	return p.Barrier(ctx)
}

// sendFiles sends a message with files, without changing their blocking mode.
func (p *Process) sendFiles(state string, files []*os.File) error {
	fds := make([]int, 0, len(files))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, f := range files {
		fd, err := dupFD(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	return p.notify.send(state, fds...)
}

// Unstore removes what is stored under name.
func (p *Process) Unstore(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return p.Notify("FDSTOREREMOVE=1", "FDNAME="+name)
}

// Stored returns the files that came from the service manager's store when
// this process was started. The caller owns them.
func (p *Process) Stored() []Stored { return p.stored }

// Barrier returns when the service manager has dealt with every message sent
// before, with an error after 5 s.
func (p *Process) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return p.notify.barrier(ctx)
}
