// SPDX-License-Identifier: Apache-2.0

// Command gate runs the project's checks and tests, in the order in which a
// failure is cheapest to find, and ends with one line: "N passed, N failed".
//
//	gate check   gofmt, go vet, staticcheck, govulncheck
//	gate test    the same, then unit tests, fuzzing, the units, real peers, and the lab
//
// It runs at the module's root. Its exit status is 0 when nothing failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	fuzzTime := flag.Duration("fuzztime", 5*time.Second, "how long each fuzz target runs")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: gate [-fuzztime DURATION] check|test")
		flag.PrintDefaults()
	}
	flag.Parse()

	steps := checks()
	switch flag.Arg(0) {
	case "check":
	case "test":
		steps = append(steps, tests(*fuzzTime)...)
	default:
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	total := runAll(ctx, os.Stdout, steps)
	fmt.Printf("\n%d passed, %d failed\n", total.passed, total.failed)
	if total.failed > 0 || ctx.Err() != nil {
		os.Exit(1)
	}
}
