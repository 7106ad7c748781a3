// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// extendFrom is the time for a start, of a service that asks for more.
const extendFrom = 4 * time.Second

// serveMain is a service that tells every client its generation and its PID,
// or misbehaves as the file "fault" in dir says.
func serveMain(dir string) error {
	text, _ := os.ReadFile(filepath.Join(dir, "fault"))
	fault, arg, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	if fault == "exit" {
		os.Exit(3)
	}
	p, err := supervisor.Start(supervisor.Options{UpgradeTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	if fault == "orphan" {
		if err := runOrphan(arg); err != nil {
			return err
		}
		fault = "never-ready"
	}
	if fault == "never-ready" {
		awaitTerm(signals)
		return nil
	}
	listeners, err := p.Listeners()
	if err != nil {
		return err
	}
	if len(listeners) == 0 || listeners[0].Name != "test" {
		return fmt.Errorf("got listeners %v", listeners)
	}
	if pred := p.Predecessor(); pred != nil {
		if err := takeOver(pred); err != nil {
			return err
		}
	}
	if fault == "gate" && !passGate(arg, signals) {
		return nil
	}
	if strings.HasPrefix(fault, "vault") {
		if err := useVault(p, dir, fault == "vault-steady"); err != nil {
			return err
		}
	}
	if err := misbehave(p, fault, arg); err != nil {
		return err
	}
	switch fault {
	case "ready-then-exit":
		os.Exit(4)
	case "puppet":
		return obey(p, listeners[0], signals)
	}
	return answer(p, listeners[0], signals, fault)
}

func awaitTerm(signals <-chan os.Signal) {
	for s := range signals {
		if s == syscall.SIGTERM {
			return
		}
	}
}

// passGate waits until there is a file at path, false if SIGTERM comes first.
func passGate(path string, signals <-chan os.Signal) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM {
				return false
			}
		case <-ticker.C:
			if _, err := os.Stat(path); err == nil {
				return true
			}
		}
	}
}

// misbehave does what the service's processes may do around readiness.
func misbehave(p *supervisor.Process, fault, arg string) error {
	ctx := context.Background()
	status := "stored " + strconv.Itoa(len(p.Stored()))
	switch fault {
	case "liar":
		if err := runLiar(arg); err != nil {
			return err
		}
	case "flood":
		// Whatever this process has started ends after it, by the supervisor.
		if err := exec.Command("/proc/self/exe", "flood", arg).Start(); err != nil {
			return err
		}
	case "ignore-abort":
		signal.Ignore(syscall.SIGABRT)
	case "freeze":
		return freezeAndGo(p, arg)
	case "store":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for i := range n {
			fd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), "m")
			if err := p.Store(ctx, fmt.Sprintf("name-%d", i), f); err != nil {
				return err
			}
			if i == 0 {
				// A second time is refused, and so is a bad name.
				if err := p.Store(ctx, "twin", f); err != nil {
					return err
				}
			}
		}
	case "extend":
		if err := p.Notify("EXTEND_TIMEOUT_USEC=60000000"); err != nil {
			return err
		}
		<-time.After(extendFrom + time.Second) // the time that is asked for
	}
	if len(p.Stored()) > 0 && fault == "unstore" {
		for _, f := range p.Stored() {
			if err := p.Unstore(f.Name); err != nil {
				return err
			}
		}
	}
	return p.Ready(status)
}

// freezeAndGo stops the supervisor and is ready, so that the supervisor finds
// everything done when it goes on.
func freezeAndGo(p *supervisor.Process, pid string) error {
	supervisor, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	if err := syscall.Kill(supervisor, syscall.SIGSTOP); err != nil {
		return err
	}
	return p.Ready("")
}

// flood sends a message again and again, until nobody hears it any more.
func flood(fields string) {
	c := notify.NewClient(os.Getenv("NOTIFY_SOCKET"))
	for {
		err := c.Send(strings.Split(fields, ",")...)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// runLiar runs a process of the service that claims what it has no right to.
func runLiar(fields string) error {
	cmd := exec.Command("/proc/self/exe", "lie", fields)
	cmd.Env = append(os.Environ(), "LIE="+fields)
	return cmd.Run()
}

// runOrphan is runLiar with a process that has left the service: its parent has
// ended, so that it is the supervisor's child.
func runOrphan(fields string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("setsid", "--fork", self, "lie", fields)
	cmd.Env = append(os.Environ(), "LIE="+fields, "LIE_UNDER="+strconv.Itoa(os.Getppid()))
	return cmd.Run()
}

// takeOver waits until the predecessor serves nobody, and tells it to end.
func takeOver(pred *net.UnixConn) error {
	defer pred.Close()
	if _, err := pred.Read(make([]byte, 16)); err != nil {
		return fmt.Errorf("waiting for the predecessor's word: %w", err)
	}
	_, err := pred.Write([]byte("taken"))
	return err
}

// answer serves until SIGTERM, or until a successor has taken over.
func answer(p *supervisor.Process, listener supervisor.Listener, signals <-chan os.Signal, fault string) error {
	var accepting sync.WaitGroup
	accept := func() {
		accepting.Go(func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(conn, p.Generation(), os.Getpid())
				_ = conn.Close()
			}
		})
	}
	accept()
	defer accepting.Wait()
	defer listener.Close()
	pause := listener.Listener.(interface{ SetDeadline(time.Time) error })
	for s := range signals {
		if s == syscall.SIGTERM && fault != "ignore-term" {
			break
		}
		if s != syscall.SIGHUP {
			continue
		}
		err := p.Upgrade(context.Background(), func(ctx context.Context, s supervisor.Successor) error {
			_ = pause.SetDeadline(time.Unix(1, 0))
			accepting.Wait()
			return handOver(ctx, s)
		})
		if err == nil {
			break
		}
		_ = pause.SetDeadline(time.Time{})
		accept()
	}
	return p.Exit(context.Background())
}

// handOver is the hand-over of a service that has nothing to hand over, and serves
// nobody meanwhile.
func handOver(ctx context.Context, s supervisor.Successor) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.Conn.Write([]byte("go on")); err != nil {
		return err
	}
	word := make([]byte, 16)
	n, err := s.Conn.Read(word)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil && string(word[:n]) != "taken" {
		err = errors.New("the successor has closed the socket")
	}
	return err
}
