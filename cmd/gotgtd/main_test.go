// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// actAsMain in the environment makes the test binary gotgtd itself.
const actAsMain = "GOTGTD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(actAsMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// run runs a command in this process.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	c := root()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errs)
	err = c.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func TestHelp(t *testing.T) {
	for command, flags := range map[string][]string{
		"serve":    {"--config", "--disk", "--target", "--listen", "--state-dir", "--control", "--log-level", "--log-format"},
		"check":    {"--config", "--print-yaml", "--control"},
		"show":     {"--json", "--control", "--bytes", "--target", "--lun", "--initiator", "--watch"},
		"sessions": {"--json", "--control", "--bytes", "--target", "--lun", "--initiator", "--watch"},
		"session":  {"list", "end", "--control"},
		"upgrade":  {"--json", "--timeout", "--control"},
		"version":  {"--json", "--control"},
	} {
		out, _, err := run(t, command, "--help")
		if err != nil {
			t.Errorf("%s --help: %v", command, err)
		}
		for _, f := range flags {
			if !strings.Contains(out, f+" ") {
				t.Errorf("%s --help says nothing of %s:\n%s", command, f, out)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, _, err := run(t, "completion", shell)
		if err != nil || !strings.Contains(out, "gotgtd") {
			t.Errorf("completion %s: %v, %d bytes", shell, err, len(out))
		}
	}
}

func TestCompletesValues(t *testing.T) {
	for args, want := range map[string]string{
		"log-level ": "debug\ninfo\nwarn\nerror\n", "top --sort ": "io\nbytes\nlatency\nqueue\n", "top --view ": "luns\nsessions\ninitiators\n",
		"serve --log-format ": "auto\ntext\njson\n", "serve --log-level ": "debug\ninfo\nwarn\nerror\n",
	} {
		out, _, err := run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if err != nil || !strings.HasPrefix(out, want) {
			t.Errorf("%q is completed by %q, %v", args, out, err)
		}
	}
}

func TestVersion(t *testing.T) {
	version = "1.2.3"
	t.Cleanup(func() { version = "" })
	out, _, err := run(t, "version")
	if want := "gotgtd 1.2.3 (" + runtime.Version() + ", snapshot schema 1)\n"; err != nil || out != want {
		t.Errorf("version: %v, %q, want %q", err, out, want)
	}
	out, _, err = run(t, "version", "--json")
	if err != nil || !strings.Contains(out, `"version": "1.2.3"`) {
		t.Errorf("version --json: %v, %s", err, out)
	}
	if out, _, err = run(t, "--version"); err != nil || out != "gotgtd version 1.2.3\n" {
		t.Errorf("--version: %v, %q", err, out)
	}
	version = ""
	if versionString() == "" {
		t.Error("a build without a version has none at all")
	}
}

func TestBadArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"frobnicate"}, `unknown command "frobnicate"`},
		{[]string{"show", "all"}, `can't be called with the argument "all" alone: it is "gotgtd show [flags]"`},
		{[]string{"check"}, `required flag(s) "config" not set`},
		{[]string{"serve", "--config", "a", "--disk", "b"}, "[config disk]"},
		{[]string{"serve", "--config", "a", "--target", "iqn.2026-11.test:a"}, "[config target]"},
		{[]string{"serve", "--disk", "a", "--log-level", "chatty"}, `--log-level "chatty" is none of`},
		{[]string{"top", "--sort", "size"}, `--sort "size" is none of ["io" "bytes" "latency" "queue"]`},
		{[]string{"top", "--view", "sessions", "--sort", "latency"}, "--sort latency is for logical units alone: sessions have"},
		{[]string{"top", "--view", "disks"}, `--view "disks" is none of`},
		{[]string{"top", "--delay", "0"}, `--delay "0": must be`},
		{[]string{"top", "-n", "-1"}, "--count -1: must not be negative"},
		{[]string{"sessions", "--watch=0s"}, "--watch=0s: must be a positive time"},
		{[]string{"show", "--lun", "70000"}, `"70000" is not a LUN`},
		{[]string{"show", "--initiator", "[a"}, `--initiator "[a" is no pattern`},
		{[]string{"serve", "--disk", "a", "--log-format", "xml"}, `--log-format "xml" is none of auto, text, json`},
		{[]string{"log-level", "chatty"}, `the level "chatty" is none of debug, info, warn, error`},
		{[]string{"upgrade", "--timeout", "-1s"}, "--timeout -1s"},
		{[]string{"serve", "d.img"}, "give --disk d.img, or --config d.img"},
		{[]string{"check", "--colour"}, "unknown flag: --colour"},
		{[]string{"session", "frobnicate"}, `unknown command "frobnicate"`},
		{[]string{"session", "end"}, `with no arguments: it is "gotgtd session end TSIH [flags]"`},
		{[]string{"lun", "resize", "a", "one"}, `"one" is not a LUN`},
		{[]string{"config", "convert", "a", "b"}, `the arguments ["a" "b"]: it is "gotgtd config convert`},
		{[]string{"session", "end", "first"}, `"first" is not a TSIH`},
		{[]string{"session", "end", "70000"}, `"70000" is not a TSIH`},
		{[]string{"session", "end", "1", "--reject-for", "0s"}, "--reject-for 0s: must be a time up to 24h0m0s"},
		{[]string{"session", "end", "1", "--reject-for", "25h"}, "--reject-for 25h0m0s: must be"},
	} {
		_, _, err := run(t, tc.args...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: error %v, want one with %q", tc.args, err, tc.want)
		}
		if got := exitStatus(err); got != statusUsage {
			t.Errorf("%v: exit status %d, want %d", tc.args, got, statusUsage)
		}
	}
}
