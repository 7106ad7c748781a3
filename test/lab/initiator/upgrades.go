// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
)

// upgrades replaces gotgtd again and again.
type upgrades struct {
	target *lab.Target
	cancel context.CancelFunc
	done   chan struct{} // closed when no more upgrade begins by itself

	mu    sync.Mutex // held during an upgrade and a change of the configuration; protects what follows
	count int
	worst time.Duration // the longest pause
	err   error         // of the first upgrade that failed
}

// startUpgrades upgrades the target now and whenever the time given has passed since the last upgrade.
func startUpgrades(ctx context.Context, target *lab.Target, every time.Duration) *upgrades {
	ctx, cancel := context.WithCancel(ctx)
	u := &upgrades{target: target, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		for ctx.Err() == nil {
			// One that has begun is not broken off at the end. The error is kept.
			_ = u.now(context.WithoutCancel(ctx))
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
		}
	}()
	return u
}

// now does an upgrade at once.
func (u *upgrades) now(ctx context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.nowLocked(ctx)
}

func (u *upgrades) nowLocked(ctx context.Context) error {
	pause, err := u.target.Upgrade(ctx)
	u.count++
	u.worst = max(u.worst, pause)
	if u.err == nil {
		u.err = err
	}
	return err
}

// change has gotgtd serve something else from the next upgrade on, which it does at once.
func (u *upgrades) change(ctx context.Context, s serves) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.target.Configure(s.config()); err != nil {
		return err
	}
	return u.nowLocked(ctx)
}

// force is change to what gotgtd refuses otherwise, as it takes away what is in use:
// the refusal has to name that.
func (u *upgrades) force(ctx context.Context, s serves, used string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.target.Configure(s.config()); err != nil {
		return err
	}
	_, err := u.target.Ask(ctx, "upgrade")
	if err == nil {
		return fmt.Errorf("%s was taken away in use, without force", used)
	}
	if text := err.Error(); !strings.Contains(text, used) || !strings.Contains(text, "--force") {
		return fmt.Errorf("what gotgtd refuses is not %s, or it does not tell of --force: %w", used, err)
	}
	_, err = u.target.Ask(ctx, "upgrade", "--force")
	return err
}

// exclusively does something that makes upgrades of its own.
func (u *upgrades) exclusively(f func() error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return f()
}

// stop does no more upgrades by itself and returns how many there were, the longest
// pause, and the error of the first that failed.
func (u *upgrades) stop() (count int, worst time.Duration, err error) {
	u.cancel()
	<-u.done
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.count, u.worst, u.err
}
