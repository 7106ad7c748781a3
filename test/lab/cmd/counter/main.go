// SPDX-License-Identifier: Apache-2.0

// Command counter runs in the lab's machines: the Xen guest writes with it, the
// hosts check with it what the guest has written.
//
//	counter write [-offset BYTES] [-size BYTES] [-file PATH] [-pause TIME] DEVICE
//	counter check [-offset BYTES] [-size BYTES] DEVICE
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/counter"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || (args[0] != "write" && args[0] != "check") {
		return fmt.Errorf("usage: counter write|check [flags] DEVICE")
	}
	verb := args[0]
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	offset := flags.Int64("offset", 0, "where the counter begins on the device, in bytes")
	size := flags.Int64("size", 64<<20, "how much room it has, in bytes")
	file := flags.String("file", "", "file that gets the number once a second")
	pause := flags.Duration("pause", 20*time.Millisecond, "time between two numbers")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("one DEVICE is needed, not %d", flags.NArg())
	}
	mode := os.O_RDONLY
	if verb == "write" {
		mode = os.O_RDWR | syscall.O_SYNC
	}
	device, err := os.OpenFile(flags.Arg(0), mode|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer device.Close()

	if verb == "check" {
		records, err := counter.Check(device, *offset, *size)
		fmt.Printf("%d numbers\n", len(records))
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	w := counter.Writer{
		Disk: counter.Disk{Device: device, Offset: *offset, Size: *size},
		File: *file, Pause: *pause, Console: os.Stdout,
	}
	return w.Run(ctx)
}
