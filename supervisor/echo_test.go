// SPDX-License-Identifier: Apache-2.0

package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
)

// echo is a daemon that answers every line with the line and its generation's
// number, and hands its connections to its successor.
type echo struct {
	process *supervisor.Process
	dir     string // holds "fault", which says how a successor misbehaves

	mu    sync.Mutex // protects conns
	conns map[*net.TCPConn]chan struct{}
}

// runEcho is the daemon's main function.
func runEcho(dir string) error {
	e := &echo{dir: dir, conns: map[*net.TCPConn]chan struct{}{}}
	e.faultAt("start")
	timeout := time.Minute
	if d, err := time.ParseDuration(os.Getenv("ECHO_TIMEOUT")); err == nil {
		timeout = d
	}
	var err error
	e.process, err = supervisor.Start(supervisor.Options{UpgradeTimeout: timeout})
	if err != nil {
		return err
	}
	// Ready to be told, before anyone learns that there is someone to tell.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR2)
	listener, err := e.process.Listen(context.Background(), "echo", "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if e.process.Predecessor() != nil {
		if err := e.takeOver(e.process.Predecessor()); err != nil {
			return err
		}
	}
	e.faultAt("ready")
	if err := e.process.Ready(fmt.Sprintf("generation %d", e.process.Generation())); err != nil {
		return err
	}
	fmt.Printf("ready %d %d %s\n", e.process.Generation(), os.Getpid(), listener.Addr())
	e.process.AtExit("leave", func(context.Context) error {
		fmt.Printf("leaving %d %d\n", e.process.Generation(), os.Getpid())
		return nil
	})
	e.process.AtExit("say goodbye", func(context.Context) error {
		fmt.Printf("exit %d %d\n", e.process.Generation(), os.Getpid())
		return nil
	})
	err = e.serve(listener, signals)
	return errors.Join(err, e.process.Exit(context.Background())) // again: the hooks have run
}

// faultAt misbehaves as the file says, at the step that it names.
func (e *echo) faultAt(step string) {
	text, _ := os.ReadFile(filepath.Join(e.dir, "fault"))
	at, what, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if at != step {
		return
	}
	switch what {
	case "exit":
		os.Exit(3)
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang":
		fmt.Printf("hanging %d\n", os.Getpid())
		select {}
	}
}

func (e *echo) serve(listener net.Listener, signals <-chan os.Signal) error {
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.start(conn.(*net.TCPConn))
		}
	})
	defer accepting.Wait()
	defer listener.Close()
	for s := range signals {
		switch s {
		case syscall.SIGTERM:
			e.freeze()
			return e.process.Exit(context.Background())
		case syscall.SIGUSR2:
			fmt.Printf("fds %d\n", countFDs())
		case syscall.SIGHUP:
			err := e.process.Upgrade(context.Background(), e.handOver)
			if err == nil {
				return e.process.Exit(context.Background())
			}
			fmt.Printf("failed %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	return nil
}

func countFDs() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}

func (e *echo) start(conn *net.TCPConn) {
	done := make(chan struct{})
	e.mu.Lock()
	e.conns[conn] = done
	e.mu.Unlock()
	go func() {
		defer close(done)
		lines := bufio.NewReader(conn)
		for {
			line, err := lines.ReadString('\n')
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return // frozen
			}
			if err != nil {
				_ = conn.Close()
				e.mu.Lock()
				delete(e.conns, conn)
				e.mu.Unlock()
				return
			}
			fmt.Fprintf(conn, "%d %s", e.process.Generation(), line)
		}
	}()
}

// freeze stops the readers. The test's lines are never split, so there is
// nothing else to carry over.
func (e *echo) freeze() []*net.TCPConn {
	e.mu.Lock()
	var all []*net.TCPConn
	var waits []chan struct{}
	for c, done := range e.conns {
		all = append(all, c)
		waits = append(waits, done)
	}
	e.mu.Unlock()
	for i, c := range all {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-waits[i]
	}
	return all
}

func (e *echo) thaw(conns []*net.TCPConn) {
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Time{})
		e.start(c)
	}
}

// handOver is the old generation's side.
func (e *echo) handOver(ctx context.Context, s supervisor.Successor) error {
	// What a successor has said before it died counts, and is there to be read.
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.SetDeadline(time.Now().Add(100 * time.Millisecond)) })
	defer stop()
	err := e.talk(s)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // which is why the deadline has passed
	}
	return err
}

func (e *echo) talk(s supervisor.Successor) error {
	if err := expect(s.Conn, "hello"); err != nil {
		return err
	}
	conns := e.freeze()
	err := e.sendConns(s.Conn, conns)
	if err == nil {
		err = expect(s.Conn, "prepared")
	}
	if err == nil {
		_, err = s.Conn.Write([]byte("commit"))
	}
	if err == nil {
		err = expect(s.Conn, "taken")
	}
	if err != nil {
		e.thaw(conns)
		return err
	}
	for _, c := range conns {
		_ = c.Close()
	}
	return nil
}

func (e *echo) sendConns(to *net.UnixConn, conns []*net.TCPConn) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, c := range conns {
		// File and Fd would make the connection blocking for all who hold it.
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var dup int
		var dupErr error
		err = raw.Control(func(fd uintptr) { dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
		if err = errors.Join(err, dupErr); err != nil {
			return err
		}
		fds = append(fds, dup)
	}
	_, _, err := to.WriteMsgUnix([]byte("snapshot"), unix.UnixRights(fds...), nil)
	return err
}

// takeOver is the successor's side.
func (e *echo) takeOver(from *net.UnixConn) error {
	defer from.Close()
	e.faultAt("hello")
	if _, err := from.Write([]byte("hello")); err != nil {
		return err
	}
	conns, err := receiveConns(from)
	if err != nil {
		return err
	}
	e.faultAt("prepared")
	if _, err := from.Write([]byte("prepared")); err != nil {
		return err
	}
	if err := expect(from, "commit"); err != nil {
		return err
	}
	e.faultAt("taken")
	if _, err := from.Write([]byte("taken")); err != nil {
		return err
	}
	e.thaw(conns)
	return nil
}

func receiveConns(from *net.UnixConn) ([]*net.TCPConn, error) {
	buf, oob := make([]byte, 64), make([]byte, 4096)
	n, oobn, _, _, err := from.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if string(buf[:n]) != "snapshot" {
		return nil, fmt.Errorf("got %q, not the snapshot", buf[:n])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	var conns []*net.TCPConn
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "conn")
			c, err := net.FileConn(f)
			_ = f.Close()
			if err != nil {
				return nil, err
			}
			conns = append(conns, c.(*net.TCPConn))
		}
	}
	return conns, nil
}

func expect(conn *net.UnixConn, word string) error {
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return fmt.Errorf("waiting for %q: %w", word, err)
	}
	if string(buf[:n]) != word {
		return fmt.Errorf("got %q, not %q", buf[:n], word)
	}
	return nil
}
