// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
)

// lab runs suites of the lab, in their short form: package lab has what they are.
// It builds the machines' image if there is none. Namespaces and networks take root:
// others are told that the step was left out.
func lab(ctx context.Context, w io.Writer, suites ...string) count {
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "lab: left out, it has to run as root")
		return count{}
	}
	// An emulated machine boots on one processor and often waits: two suites use two processors.
	args := append([]string{"run", "./test/cmd/lab", "-short", "-side-by-side=2"}, suites...)
	out, err := command(ctx, "go", args...).CombinedOutput()
	c, ok := labCount(out)
	if !ok || (err != nil && c.failed == 0) {
		c.failed++
	}
	if c.failed > 0 {
		fmt.Fprintf(w, "--- lab\n%s", out)
		if err != nil {
			fmt.Fprintf(w, "lab: %v\n", err)
		}
	}
	return c
}

var labTotal = regexp.MustCompile(`^(\d+) passed, (\d+) failed$`)

// labCount reads the count of steps that the lab prints last. It is not there if the lab
// could not start.
func labCount(out []byte) (count, bool) {
	lines := bytes.Split(bytes.TrimRight(out, "\n"), []byte("\n"))
	// `go run` adds the exit status of what it ran.
	for _, line := range lines[max(0, len(lines)-2):] {
		if m := labTotal.FindSubmatch(line); m != nil {
			passed, passedErr := strconv.Atoi(string(m[1]))
			failed, failedErr := strconv.Atoi(string(m[2]))
			return count{passed, failed}, passedErr == nil && failedErr == nil
		}
	}
	return count{}, false
}
