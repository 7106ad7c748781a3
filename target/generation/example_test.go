// SPDX-License-Identifier: Apache-2.0

package generation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/generation"
	"github.com/gotgtd/gotgtd/target/storage"
)

// A program that serves a RAM disk, and that SIGHUP replaces while initiators use it: the
// disk and the sessions move to the binary that is then at its path. SIGTERM ends it; here
// it sends itself that.
func Example() {
	if err := serve(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// serving 1 target in generation 1
	// stopped
}

func serve(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	defer signal.Stop(signals)

	p, err := supervisor.Start(supervisor.Options{})
	if err != nil {
		return err
	}
	g, err := generation.Start(ctx, p, generation.Options{
		Version: "1.0",
		Prepare: func() (target.Options, []string, error) {
			disk := config.LUN{Number: 1, Backend: "ram", Options: storage.Options{Size: 64 << 20}}
			conf := &config.Config{Targets: []config.Target{{Name: "iqn.2026-11.com.example:disk", LUNs: []config.LUN{disk}}}}
			return target.Options{Config: conf}, nil, nil
		},
		Open: func(ctx context.Context, s *target.Server) error {
			l, err := p.Listen(ctx, "portal", "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return s.AddPortal(l, 1, "")
		},
		Serving: func(g *generation.Generation) string {
			return fmt.Sprintf("serving %d target in generation %d", len(g.Server().Status().Targets), p.Generation())
		},
	})
	if err != nil {
		return errors.Join(err, p.Exit(ctx))
	}
	fmt.Printf("serving %d target in generation %d\n", len(g.Server().Status().Targets), p.Generation())

	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil { // in place of somebody
		return err
	}
	for s := range signals {
		if s == syscall.SIGTERM {
			break
		}
		if report, err := g.Upgrade(ctx, nil); err == nil {
			fmt.Println("replaced by process", report.NewPID)
			break
		}
		// This generation goes on as before; the log has said why.
	}
	defer fmt.Println("stopped")
	return g.Stop(ctx)
}
