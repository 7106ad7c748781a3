// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"log/slog"
	"sync"
)

// recentBytes is how much a Recent keeps.
const recentBytes = 128 << 10

// Recent keeps the last lines of a log in memory, for a bug report where nobody else has kept them.
type Recent struct {
	mu   sync.Mutex // protects text
	text []byte     // whole lines
}

// Keep returns log, whose lines from level on are kept as well.
func (r *Recent) Keep(log *slog.Logger, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewMultiHandler(log.Handler(), slog.NewTextHandler(r, &slog.HandlerOptions{Level: level})))
}

// Write keeps a line. It never fails.
func (r *Recent) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(line)
	line = line[max(n-recentBytes, 0):]
	if over := len(r.text) + len(line) - recentBytes; over > 0 && len(r.text) > 0 {
		// Half of it goes at once, so that not every line has the rest moved.
		cut := min(max(over, recentBytes/2), len(r.text))
		if end := bytes.IndexByte(r.text[cut-1:], '\n'); end >= 0 {
			cut += end
		}
		r.text = append(r.text[:0], r.text[cut:]...)
	}
	r.text = append(r.text, line...)
	return n, nil
}

// String returns what is kept. A nil Recent keeps nothing.
func (r *Recent) String() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}
