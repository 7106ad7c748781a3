// SPDX-License-Identifier: Apache-2.0

// Command gate runs the project's checks and tests, in the order in which a
// failure is cheapest to find, and ends with one line: "N passed, N failed".
//
//	gate check   gofmt, go vet, staticcheck, govulncheck
//	gate quick   for after each edit: gofmt, go build, go vet, the tests of what differs
//	             from a commit (-since), a login and I/O by libiscsi
//	gate test    the checks, unit tests with the race detector, the units, real peers
//	gate fuzz    fuzzing alone, for as long as -fuzztime says
//	gate long    fuzzing, the order of locks, long tests with real peers, hostile initiators, torture,
//	             packages, the page in a browser, the image, the lab
//
// Several are run one after the other, with one sum at the end. It runs at the module's
// root. Its exit status is 0 when nothing failed.
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
	since := flag.String("since", "HEAD", "quick runs the tests of what differs from this `COMMIT`")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: gate [-fuzztime DURATION] [-since COMMIT] check|quick|test|fuzz|long...")
		flag.PrintDefaults()
	}
	flag.Parse()

	var steps []step
	for _, what := range flag.Args() {
		switch what {
		case "check":
			steps = append(steps, checks()...)
		case "quick":
			steps = append(steps, quick(*since)...)
		case "test":
			steps = append(append(steps, checks()...), tests()...)
		case "fuzz":
			steps = append(steps, fuzzing(*fuzzTime)...)
		case "long":
			steps = append(steps, long(*fuzzTime)...)
		default:
			flag.Usage()
			os.Exit(2)
		}
	}
	if len(steps) == 0 {
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
