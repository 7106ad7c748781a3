// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// maxLine bounds a line that a program in a machine prints, in bytes.
const maxLine = 1 << 20

// sshArguments are ssh's for the machine, up to the remote command.
func (m *Machine) sshArguments(more ...string) []string {
	return append(append([]string{
		"-q", "-i", filepath.Join(m.lab.image, "id"),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20",
		"-o", "ControlPath=" + filepath.Join(m.lab.Dir, m.Name()+".ssh"),
	}, more...), "root@"+m.Address())
}

// connect makes the connection that all commands share: under emulation, the key
// exchange takes longer than most of them.
func (m *Machine) connect(ctx context.Context) error {
	ssh, err := peer.Spawn("ssh", m.sshArguments("-M", "-N")...)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.ssh = ssh
	m.mu.Unlock()
	err = untilOrDone(ctx, ssh, func() error {
		_, err := peer.Run(ctx, "ssh", m.sshArguments("-O", "check")...)
		return err
	})
	if err != nil {
		return fmt.Errorf("can't connect to %s: %w\n%s", m.Name(), err, ssh.Log())
	}
	return nil
}

// ExitError is the failure of a command in a machine.
type ExitError struct {
	Machine, Command string
	Status           int // 255 also means that ssh could not run it
	Output           string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %q: exit status %d\n%s", e.Machine, e.Command, e.Status, lastLines(e.Output, explainLines))
}

// Run runs a command of the shell in the machine and returns what it printed to both its
// outputs. If its exit status is not 0, the error is an [*ExitError].
func (m *Machine) Run(ctx context.Context, command string) (string, error) {
	log := &peer.Log{Max: 8 << 20}
	cmd := m.command(ctx, command)
	cmd.Stdout, cmd.Stderr = log, log
	err := cmd.Run()
	out := log.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return out, fmt.Errorf("%s: %q: %w", m.Name(), command, context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return out, &ExitError{m.Name(), command, exit.ExitCode(), out}
	case err != nil:
		return out, fmt.Errorf("%s: %q: %w", m.Name(), command, err)
	}
	return out, nil
}

func (m *Machine) command(ctx context.Context, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ssh", append(m.sshArguments("-o", "ControlMaster=no"), command)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// Put copies a file into the machine, with the same permissions.
func (m *Machine) Put(ctx context.Context, file, path string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return m.put(ctx, f, path, info.Mode().Perm())
}

// PutText makes a file in the machine.
func (m *Machine) PutText(ctx context.Context, text, path string, mode os.FileMode) error {
	return m.put(ctx, strings.NewReader(text), path, mode)
}

// put replaces the file by a new one, as package managers do: the old one may be a
// program that runs. The contents go over a connection of their own, for
// ssh's encryption takes a second for each megabyte under emulation.
func (m *Machine) put(ctx context.Context, r io.Reader, path string, mode os.FileMode) error {
	listener, err := net.Listen("tcp", HostAddress+":0")
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(conn, r)
			err = errors.Join(err, conn.Close())
		}
		sent <- err
	}()
	_, err = m.Run(ctx, fmt.Sprintf("socat -u TCP:%[3]s STDOUT >%[1]s.new && chmod %[2]o %[1]s.new && mv -f %[1]s.new %[1]s", path, mode, listener.Addr()))
	listener.Close() // so that Accept ends if nobody came
	return errors.Join(err, <-sent)
}

// Command is a program that runs in a machine.
type Command struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when the program has ended and err is set
	err   error
	stop  sync.Once
}

// Start runs a command of the shell in the machine without waiting for its end, and calls
// line for each line of its output. Who starts it has to stop it.
func (m *Machine) Start(command string, line func(string)) (*Command, error) {
	cmd := m.command(context.Background(), command)
	var log peer.Log
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("can't start %q in %s: %w", command, m.Name(), err)
	}
	c := &Command{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			line(lines.Text())
		}
		// What is left after a line that is too long must not block the program.
		_, _ = io.Copy(io.Discard, stdout)
		if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
			c.err = fmt.Errorf("%s: %q: %w\n%s", m.Name(), command, err, log.String())
		}
	}()
	return c, nil
}

// Done is closed when the program has ended.
func (c *Command) Done() <-chan struct{} { return c.done }

// Stop closes the program's standard input and waits for its end, for 20 s; then the
// connection to it is cut. The error is the program's own.
func (c *Command) Stop() error {
	c.stop.Do(func() {
		c.stdin.Close() // an error means that it has ended
		timer := time.NewTimer(20 * time.Second)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
			c.cmd.Process.Kill() // fails only when it has ended
		}
	})
	<-c.done
	return c.err
}
