// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifyTimeout bounds how long a full queue of the service manager may hold
// up the daemon.
const notifyTimeout = 5 * time.Second

// notifier sends messages to the service manager, by the protocol of
// sd_notify(3). The zero value has no manager and sends nothing.
type notifier struct {
	addr *net.UnixAddr
}

func newNotifier(path string) notifier {
	if path == "" {
		return notifier{}
	}
	return notifier{&net.UnixAddr{Name: path, Net: "unixgram"}}
}

// send sends one datagram with the given descriptors.
func (n notifier) send(state string, fds ...int) error {
	if n.addr == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("can't reach the service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("can't notify the service manager: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix([]byte(state), rights, nil); err != nil {
		return fmt.Errorf("can't notify the service manager: %w", err)
	}
	return nil
}

// barrier returns when the service manager has dealt with every message sent
// before: it closes the descriptor that comes with BARRIER=1.
func (n notifier) barrier(ctx context.Context) error {
	if n.addr == nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("can't make a barrier: %w", err)
	}
	defer r.Close()
	err = n.send("BARRIER=1", int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("the service manager did not answer the barrier: %w", err)
	}
	return nil
}

// oneLine makes text fit for the value of a message's field.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, text)
}

// Notify sends fields of sd_notify(3), one a string such as "STATUS=2
// sessions". Without a service manager it does nothing.
func (p *Process) Notify(fields ...string) error {
	for i, f := range fields {
		fields[i] = oneLine(f)
	}
	return p.notify.send(strings.Join(fields, "\n"))
}

// Status sets the one-line text that the service manager shows.
func (p *Process) Status(text string) error { return p.Notify("STATUS=" + text) }

// Reloading tells the service manager that the daemon is reloading; the next
// READY=1 ends it. status may be empty.
func (p *Process) Reloading(status string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("can't read the monotonic clock: %w", err)
	}
	fields := []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}
	if status != "" {
		fields = append(fields, "STATUS="+status)
	}
	return p.Notify(fields...)
}

// Stopping tells the service manager that the daemon is about to end. status
// may be empty.
func (p *Process) Stopping(status string) error {
	fields := []string{"STOPPING=1"}
	if status != "" {
		fields = append(fields, "STATUS="+status)
	}
	return p.Notify(fields...)
}

// Watchdog tells the service manager that the daemon is alive, at half the
// interval that it asks for, as long as alive returns true. alive must report
// progress of the daemon's real work. Watchdog returns when ctx ends or, at
// once, when no watchdog is asked for.
func (p *Process) Watchdog(ctx context.Context, alive func() bool) {
	if p.watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(p.watchdog / 2)
	defer ticker.Stop()
	for {
		if alive() {
			if err := p.Notify("WATCHDOG=1"); err != nil {
				p.log.Warn("watchdog ping failed", "err", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
