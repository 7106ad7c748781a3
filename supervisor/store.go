// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"os"
	"time"
)

// storeTimeout bounds the wait for the service manager's barrier.
const storeTimeout = 5 * time.Second

// A Stored is a file that an earlier process of the service had put into the
// service manager's descriptor store.
type Stored struct {
	Name string
	File *os.File
}

// Store gives copies of files to the service manager's descriptor store under
// one name (see notify.CheckName). It returns when the manager has taken them
// up. The manager gives no error: what exceeds its bound it drops. The files
// stay in the store, also after a hang-up, until Unstore.
func (p *Process) Store(ctx context.Context, name string, files ...*os.File) error {
	if err := p.manager.Store(name, files...); err != nil {
		return err
	}
	return p.Barrier(ctx)
}

// Unstore removes what is stored under name.
func (p *Process) Unstore(name string) error { return p.manager.Unstore(name) }

// Stored returns the files that came from the service manager's store when
// this process was started. The caller owns them.
func (p *Process) Stored() []Stored { return p.stored }

// Barrier returns when the service manager has dealt with every message sent
// before, with an error after 5 s.
func (p *Process) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return p.manager.Barrier(ctx)
}
