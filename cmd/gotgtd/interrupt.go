// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// holdSignals lets a change that has begun come to its end, so that the file is what runs:
// the first signal to end is only answered, on w. The second one ends the process, for the daemon
// may hang. It returns what ends this.
func holdSignals(w io.Writer) (release func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			signal.Stop(signals)
			fmt.Fprintln(w, "the change is under way, and this waits for its end; after another signal the file may say what does not run")
		case <-done:
			signal.Stop(signals)
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
