// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// statusEvery bounds how often the status text goes to systemd.
const statusEvery = time.Second

// upstream is the supervisor's own service manager, as a rule systemd. Errors
// are not reported: a manager that is not there is no reason not to serve.
type upstream struct {
	notify.Client
	pingEvery time.Duration // 0: no watchdog
	pingAt    time.Time

	status   string
	sent     string
	statusAt time.Time // when the status may be sent next
}

func newUpstream() upstream {
	u := upstream{Client: notify.NewClient(os.Getenv("NOTIFY_SOCKET"))}
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		u.pingEvery = interval / 2
		u.pingAt = time.Now()
	}
	return u
}

// due is when tick has something to do; zero means never.
func (u *upstream) due() time.Time {
	due := u.pingAt
	if u.status != u.sent && u.Managed() && (due.IsZero() || u.statusAt.Before(due)) {
		due = u.statusAt
		if due.IsZero() {
			due = time.Now()
		}
	}
	return due
}

// tick sends a sign of life and the status, if they are due. It runs in the
// owner's loop, so that a ping means that the owner makes progress.
func (u *upstream) tick(now time.Time) {
	if u.pingEvery > 0 && !now.Before(u.pingAt) {
		u.pingAt = now.Add(u.pingEvery)
		_ = u.Send("WATCHDOG=1")
	}
	if u.status != u.sent && !now.Before(u.statusAt) {
		u.sent, u.statusAt = u.status, now.Add(statusEvery)
		_ = u.Send("STATUS=" + u.status)
	}
}

// text sets the status text.
func (u *upstream) text(status string) { u.status = status }

func (u *upstream) ready(status string) {
	u.status, u.sent = status, status
	_ = u.Send("READY=1", "STATUS="+status)
}

func (u *upstream) reloading(status string) { _ = u.Reloading(status) }

func (u *upstream) extend(d time.Duration) {
	_ = u.Send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

func (u *upstream) stopping() { _ = u.Stopping("") }

// summary is the status text: systemctl status shows it.
func (s *Service) summary() string {
	text := string(s.state)
	if s.main != nil {
		text = fmt.Sprintf("generation %d, PID %d", s.main.number, s.main.pid)
		if s.main.status != "" {
			text += ": " + s.main.status
		}
	}
	if s.failure.Reason != "" && time.Since(s.failure.Time) < failureShown {
		text += "; last failure: " + s.failure.Reason
	}
	return text
}

// failureShown is how long a failure stays in the status text.
const failureShown = time.Hour
