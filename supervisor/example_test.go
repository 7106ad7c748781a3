// SPDX-License-Identifier: Apache-2.0

package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/gotgtd/gotgtd/supervisor"
)

// A daemon that tells every client which generation it is. SIGHUP replaces it
// by the binary that is then at its path, SIGTERM ends it; here a first client
// asks for the latter.
func Example() {
	if err := serveGenerations(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// generation 1
	// the last client was served
}

func serveGenerations() error {
	// Before anyone can know that there is someone to signal.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	defer signal.Stop(signals)

	ctx := context.Background()
	p, err := supervisor.Start(supervisor.Options{})
	if err != nil {
		return err
	}
	// From the service manager, from the generation before, or bound now.
	listener, err := p.Listen(ctx, "greeter", "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, p.Exit(ctx))
	}
	if before := p.Predecessor(); before != nil {
		// A daemon with clients to take over would do so here, over this socket.
		if _, err := before.Write([]byte("taken")); err != nil {
			return errors.Join(err, p.Exit(ctx))
		}
		_ = before.Close()
	}
	var accepting sync.WaitGroup
	accepting.Go(func() { greet(listener, p.Generation()) })
	p.AtExit("greeter", func(context.Context) error {
		err := listener.Close()
		accepting.Wait()
		fmt.Println("the last client was served")
		return err
	})
	if err := p.Ready("greeting"); err != nil {
		return errors.Join(err, p.Exit(ctx))
	}
	if err := beFirstClient(listener.Addr()); err != nil {
		return errors.Join(err, p.Exit(ctx))
	}
	for s := range signals {
		// After a failed upgrade this generation goes on as before; Upgrade has
		// told the service manager why.
		if s == syscall.SIGTERM || p.Upgrade(ctx, untilTaken) == nil {
			break
		}
	}
	return p.Exit(ctx)
}

func greet(l net.Listener, generation int) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "generation %d", generation)
		_ = conn.Close()
	}
}

// untilTaken is the old generation's side of the hand-over.
func untilTaken(ctx context.Context, s supervisor.Successor) error {
	// The successor's death or a time limit ends the wait.
	defer context.AfterFunc(ctx, func() { _ = s.Conn.Close() })()
	word := make([]byte, len("taken"))
	if _, err := s.Conn.Read(word); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

func beFirstClient(addr net.Addr) error {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return syscall.Kill(os.Getpid(), syscall.SIGTERM)
}
