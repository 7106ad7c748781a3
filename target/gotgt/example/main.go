// SPDX-License-Identifier: Apache-2.0

// Command example is a program that embeds gotgt as storage controllers do: it
// has its volume's blocks itself, gives gotgt a remote backing store to reach
// them by, and drives the target through gotgt's interfaces alone. It was a
// gotgt program before: what made it one of this project's is the import of
// the driver, and the call of Upgradable.
//
//	example -memory /dev/shm/vol1 -size 1073741824 -portal 127.0.0.1:3260
//	curl --unix-socket /tmp/vol1.sock http://volume/stats
//	curl --unix-socket /tmp/vol1.sock -X POST 'http://volume/resize?size=2147483648'
//	kill -HUP PID     # replaces the process
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	iscsit "github.com/gotgtd/gotgtd/target/gotgt"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run() error {
	memory := flag.String("memory", "", "`FILE` in memory (tmpfs) that has the volume's blocks; made if it is missing")
	size := flag.Int64("size", 1<<30, "size of a volume that is made, in `BYTES`")
	name := flag.String("name", "vol1", "the volume's `NAME`")
	portals := flag.String("portal", "127.0.0.1:3260", "`ADDRESS:PORT` of the portals, the same port in all, with commas between")
	control := flag.String("control", "", "`PATH` of the socket for requests")
	flag.Parse()

	c := newController(*control)
	if err := iscsit.Upgradable(iscsit.UpgradeOptions{Serving: c.serving}); err != nil {
		return err
	}
	v, err := openVolume(*memory, *size)
	if err != nil {
		return err
	}
	defer v.close()
	f := &frontend{volume: v}
	c.frontend = f
	ended, err := f.startup(*name, strings.Split(*portals, ","))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return c.wait(ctx, ended)
}
