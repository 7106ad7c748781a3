// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Until calls f every few milliseconds until it returns nil, and gives up with
// f's last error when ctx ends. It is for states that another process reaches
// without telling.
func Until(ctx context.Context, f func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// untilServing waits until something accepts connections at each address, and
// fails at once when the process that should do so has ended.
func untilServing(ctx context.Context, p *Process, addresses []string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var d net.Dialer
	for _, a := range addresses {
		err := Until(ctx, func() error {
			select {
			case <-p.Done():
				cancel()
				return fmt.Errorf("%s has ended:\n%s", p.name, tail(p.Log(), 4<<10))
			default:
			}
			conn, err := d.DialContext(ctx, "tcp", a)
			if err != nil {
				return err
			}
			return conn.Close()
		})
		if err != nil {
			return fmt.Errorf("nothing serves %s: %w", a, err)
		}
	}
	return nil
}

// FreePort returns a loopback address whose port was free a moment ago, for
// programs that can't be told to choose one themselves.
func FreePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("can't find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
