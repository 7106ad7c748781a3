// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runVerb runs a verb of upgraded as people do, and returns what it prints.
func (p *programs) runVerb(args ...string) (stdout, stderr string, status int) {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(p.upgraded, append(args, "--control", p.control)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestVerbs goes through all of them with a service that knows nothing of
// supervision.
func TestVerbs(t *testing.T) {
	p := buildPrograms(t)
	for _, verb := range []string{"status", "reload", "restart", "stop", "reexec"} {
		out, errs, status := p.runVerb(verb)
		if want := "upgraded: " + verb + ": can't reach the supervisor: "; status != 1 || out != "" || !strings.HasPrefix(errs, want) {
			t.Errorf("%s of nobody exits with %d: %q %q", verb, status, out, errs)
		}
	}
	socket := filepath.Join(p.dir, "service.sock")
	p.start(p.upgraded, "run", "--control", p.control, "--listen", "web="+socket, "--ready", "exec",
		"--strategy", "restart", "--", "sleep", "1000")
	p.untilServing(0)
	for _, step := range []struct {
		verb string
		want []string
	}{
		{"status", []string{"state:       serving\n", "generation:  1, PID ", "socket:      web on " + socket, "strategy:    restart\n", "restarts:    0\n", "supervisor:  "}},
		{"reload", []string{"state:       serving\n", "generation:  2, PID "}},
		{"stop", []string{"state:       stopped\n", "socket:      web on " + socket}},
		{"stop", []string{"state:       stopped\n"}},
		{"reload", []string{"state:       serving\n", "generation:  3, PID "}},
		{"restart", []string{"state:       serving\n", "generation:  4, PID "}},
		{"reexec", []string{"generation:  4, PID ", "1 reexecs\n"}},
	} {
		out, errs, status := p.runVerb(step.verb)
		for _, want := range step.want {
			if status != 0 || errs != "" || !strings.Contains(out, want) {
				t.Errorf("%s exits with %d: %s%s; want %q", step.verb, status, out, errs, want)
			}
		}
	}
}

// TestLogFormat has upgraded log JSON.
func TestLogFormat(t *testing.T) {
	p := buildPrograms(t)
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), p.upgraded, "run", "--control", p.control, "--ready", "exec", "--strategy", "restart", "--log-format", "json", "--", "sleep", "1000")
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.untilServing(0)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := out.ReadFrom(log); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	started := false
	for line := range strings.Lines(out.String()) {
		var entry struct {
			Level, Msg string
			Generation int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" {
			t.Errorf("%s: %v", line, err)
		}
		started = started || entry.Msg == "generation started" && entry.Generation == 1
	}
	if !started {
		t.Errorf("no generation was started:\n%s", &out)
	}
}

// What can't be is said before anything is started.
func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"run":                                                     "requires at least 1 arg",
		"run --strategy faith -- true":                            `strategy "faith" is none of handoff, overlap, restart`,
		"run --log-format xml -- true":                            `--log-format "xml" is none of auto, text, json`,
		"run --ready never -- true":                               `readiness "never" is neither notify nor exec`,
		"run --ready exec -- true":                                "strategy handoff needs a service that notifies",
		"run --listen web -- true":                                `can't listen on "web": it is not NAME=ADDRESS`,
		"run --listen a:b=127.0.0.1:1 -- true":                    `descriptor name "a:b" has the character ':' in it`,
		"run --listen web=127.0.0.1 -- true":                      "missing port",
		"run --ready-timeout -1s -- true":                         "ready timeout is negative",
		"run --stop-timeout soon -- true":                         `invalid argument "soon" for "--stop-timeout"`,
		"run --control /" + strings.Repeat("x", 120) + " -- true": "the path has more than 100 bytes",
		"status of gotgtd":                                        "unknown command",
		"bless":                                                   `unknown command "bless"`,
	} {
		root := newCommand()
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("upgraded %.60s: %v, want %q in it", line, err, want)
		}
	}
}

// TestManualIsComplete compares the verbs and options with those of the manual page, in both
// directions.
func TestManualIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/man/upgraded.8")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\\f[BIR]`).ReplaceAllString(strings.ReplaceAll(string(page), `\-`, "-"), "")
	_, rest, found := strings.Cut(text, "\n.SH SYNOPSIS\n")
	synopsis, rest, foundToo := strings.Cut(rest, "\n.SH ")
	_, options, foundThree := strings.Cut(rest, "\n.SH OPTIONS\n")
	options, _, _ = strings.Cut(options, "\n.SH ")
	if !found || !foundToo || !foundThree {
		t.Fatal("the page has no synopsis or no options")
	}
	var verbs []string
	flags := map[string]bool{}
	for _, c := range newCommand().Commands() {
		verbs = append(verbs, c.Name())
		for _, o := range regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(c.UsageString(), -1) {
			flags[o] = true
		}
	}
	delete(flags, "--help")
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^\.B upgraded (\S+)`).FindAllStringSubmatch(synopsis, -1) {
		shown = append(shown, strings.Split(m[1], "|")...)
	}
	slices.Sort(verbs)
	slices.Sort(shown)
	if diff := cmp.Diff(verbs, shown); diff != "" {
		t.Errorf("verbs: -program +manual page:\n%s", diff)
	}
	var entries []string
	for _, m := range regexp.MustCompile(`(?m)^\.BR? (--.*)$`).FindAllStringSubmatch(options, -1) {
		entries = append(entries, regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(m[1], -1)...)
	}
	slices.Sort(entries)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(flags)), entries); diff != "" {
		t.Errorf("options: -program +manual page:\n%s", diff)
	}
}
