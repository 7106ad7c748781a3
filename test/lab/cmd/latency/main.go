// SPDX-License-Identifier: Apache-2.0

// Command latency runs in the lab's machines. It reads and writes 4 KiB blocks of a
// device, destroying what is there, and prints a line for each: see package latency. It ends when its
// standard input does.
//
//	latency [-offset BYTES] [-size BYTES] [-pause TIME] DEVICE
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/latency"
)

// flushTime is how long a line may wait for others: each write costs the connection that
// takes them away.
const flushTime = 200 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "latency:", err)
		os.Exit(1)
	}
}

func run() error {
	offset := flag.Int64("offset", 0, "where the blocks begin on the device, in bytes")
	size := flag.Int64("size", 4<<20, "how many bytes are used")
	pause := flag.Duration("pause", 10*time.Millisecond, "time between two operations")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("one DEVICE is needed, not %d", flag.NArg())
	}
	device, err := os.OpenFile(flag.Arg(0), os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer device.Close()

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() { // ends with the process, which stdin's end causes
		io.Copy(io.Discard, os.Stdin)
		cancel(nil)
	}()
	out := &lines{w: bufio.NewWriterSize(os.Stdout, 64<<10)}
	var flusher sync.WaitGroup
	flusher.Go(func() {
		tick := time.NewTicker(flushTime)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := out.flush(); err != nil {
					cancel(err)
				}
			}
		}
	})
	probe := latency.Probe{Device: device, Offset: *offset, Size: *size, Pause: *pause}
	err = probe.Run(ctx, out.add)
	cancel(err)
	flusher.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return errors.Join(err, out.flush())
}

// lines gathers lines for the standard output.
type lines struct {
	mu sync.Mutex // protects w
	w  *bufio.Writer
}

func (l *lines) add(o latency.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.w, o) // an error stays until flush
}

func (l *lines) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Flush()
}
