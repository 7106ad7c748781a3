// SPDX-License-Identifier: Apache-2.0

// Package peer runs the programs that tests and benchmarks need beside
// themselves: targets (this project's and others') and initiators. Each program
// has an owner, ends with it, and leaves the end of its log behind.
package peer

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// stopTime is how long a program has to end after SIGTERM.
const stopTime = 20 * time.Second

// maxLog is how much of a program's output is kept, in bytes.
const maxLog = 256 << 10

// Process is a program that runs until it is stopped.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *Log
	done chan struct{} // closed when the program has ended and err is set
	err  error
}

// Spawn starts a program. It is killed when this process dies, whatever the
// reason: a test that panics leaves nothing running.
func Spawn(name string, args ...string) (*Process, error) {
	log := new(Log)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// What the program leaves running could hold its output open for ever.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("can't start %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the program's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is the end of what the program has printed so far.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop asks the program to end with SIGTERM and waits for it. It is an error if
// the program has to be killed, or ends with another status than 0.
func (p *Process) Stop() error {
	// The program may have ended by itself; its status tells.
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		select {
		case <-p.done:
		case <-time.After(time.Second):
			return fmt.Errorf("can't stop %s: %w", p.name, err)
		}
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w", p.name, p.err)
		}
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not stop in %v and was killed", p.name, stopTime)
	}
}

// Kill ends the program with SIGKILL and waits for it.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only when it has ended
	<-p.done
}

// Run runs a program to its end and returns what it printed. The error of one
// that fails has the end of its output.
func Run(ctx context.Context, name string, args ...string) (string, error) {
	log := &Log{Max: 8 << 20} // libiscsi's suite prints a few megabytes
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	out := log.String()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out, fmt.Errorf("%s %q: %w\n%s", name, args, err, tail(out, 4<<10))
	}
	return out, nil
}

// Log is an io.Writer that keeps the last Max bytes, or 256 KiB if Max is zero.
// It may be used by several goroutines.
type Log struct {
	Max int

	mu   sync.Mutex // protects what follows
	text []byte
}

// Write adds to the log. It never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.Max
	if limit == 0 {
		limit = maxLog
	}
	l.text = append(l.text, p...)
	if len(l.text) > 2*limit {
		l.text = append(l.text[:0], l.text[len(l.text)-limit:]...)
	}
	return len(p), nil
}

// String is what is kept of the log.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
