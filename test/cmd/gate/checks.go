// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
)

// sources are the folders with Go files.
var sources = []string{"bench", "cmd", "internal", "supervisor", "target", "test"}

// checks are the steps that read the source and run nothing of it.
func checks() []step {
	return []step{
		program("gofmt", true, slices.Concat([]string{"gofmt", "-l"}, sources)...),
		program("go vet", false, "go", "vet", "./..."),
		program("staticcheck", false, "go", "tool", "staticcheck", "./..."),
		{"govulncheck", govulncheck},
	}
}

// govulncheckFound is the exit status by which govulncheck reports that a
// vulnerability is reachable; anything else but 0 means that it could not work.
const govulncheckFound = 3

// govulncheck needs its database from the network. Where that can't be reached
// there is nothing to pass or fail, and the output says so.
func govulncheck(ctx context.Context, w io.Writer) count {
	cmd := command(ctx, "go", "tool", "govulncheck", "./...")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return one(true)
	}
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == govulncheckFound {
		fmt.Fprintf(w, "--- govulncheck\n%s", out)
		return one(false)
	}
	if unreachable(out) {
		fmt.Fprintln(w, "govulncheck: its database can't be reached from here; going on without it")
		return count{}
	}
	fmt.Fprintf(w, "--- govulncheck\n%s%v\n", out, err)
	return one(false)
}

// unreachable reports whether govulncheck's output tells of a database that it
// could not fetch, rather than of source that it could not read.
func unreachable(out []byte) bool {
	for _, sign := range []string{"fetching vulnerabilities", "vuln.go.dev", "dial tcp", "no such host"} {
		if bytes.Contains(out, []byte(sign)) {
			return true
		}
	}
	return false
}
