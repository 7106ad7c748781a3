// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// stopTime is how long the run has to clean up when it is interrupted.
const stopTime = 30 * time.Second

// Main is the lab's command: it runs those of the suites that the arguments name,
// begun in the order of the list, and returns the exit status. It has to be started at
// the module's root, as root.
func Main(suites []Suite) int {
	o, err := parse(suites, os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := 1, error(nil)
	if work, ok := inside(); ok {
		status, err = runInside(ctx, o, work)
	} else {
		status, err = runOutside(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return status
}

type options struct {
	suites     []Suite
	short      bool
	cuts       int
	sideBySide int
	out        string
}

func parse(suites []Suite, args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.BoolVar(&o.short, "short", false, "fewer rounds: for a run of all checks")
	flags.IntVar(&o.cuts, "cuts", 0, "how many power cuts; 0 is as many as the suite does by itself")
	flags.IntVar(&o.sideBySide, "side-by-side", 1, "how many suites run at a time; with more than 1, latencies are those of a busy computer")
	flags.StringVar(&o.out, "out", filepath.Join("build", "lab"), "folder for lab-report.md and the pictures")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: lab [flags] SUITE...")
		flags.PrintDefaults()
		for _, s := range suites {
			fmt.Fprintf(flags.Output(), "  %-10s %s\n", s.Name, s.Title)
		}
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for _, s := range suites {
		if slices.Contains(flags.Args(), s.Name) {
			o.suites = append(o.suites, s)
		}
	}
	if o.sideBySide < 1 {
		return o, fmt.Errorf("-side-by-side %d: not a number of suites, which is 1 or more", o.sideBySide)
	}
	if flags.NArg() == 0 || len(o.suites) != flags.NArg() {
		return o, fmt.Errorf("%s: not a list of suites; see -help", strings.Join(flags.Args(), " "))
	}
	return o, nil
}

// runOutside makes what needs the network, the image and the programs, and has the suites
// run in namespaces.
func runOutside(ctx context.Context, o options) (status int, err error) {
	if err := errors.Join(dieWithParent(), prepareOut(o.out)); err != nil {
		return 1, err
	}
	image, err := findImage(ctx, os.Stdout)
	if err != nil {
		return 1, err
	}
	work, err := os.MkdirTemp("", "gotgtd-lab-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.Symlink(image, filepath.Join(work, "image")); err != nil {
		return 1, err
	}
	if err := buildPrograms(ctx, filepath.Join(work, "programs"), o.suites); err != nil {
		return 1, err
	}
	outcomes := runSuites(os.Stdout, o, func(s Suite, out io.Writer) outcome {
		if ctx.Err() != nil {
			return outcome{Failed: 1, Summary: fmt.Sprintf("\nlab-%s: not run, interrupted\n", s.Name)}
		}
		return readOutcome(work, s, enter(ctx, work, o.arguments(s), out))
	})
	return conclude(os.Stdout, o.out, outcomes, ctx.Err())
}

// prepareOut makes the folder for the reports if it is not there, and makes sure that they can
// be written: better now than when all is done.
func prepareOut(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("can't make the folder for the reports: %w", err)
	}
	f, err := os.CreateTemp(dir, ".lab-")
	if err != nil {
		return fmt.Errorf("can't write into the folder for the reports: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// buildPrograms builds the project's and the lab's own programs, and the faulty ones that
// suites ask for.
func buildPrograms(ctx context.Context, dir string, suites []Suite) error {
	if err := buildProgram(ctx, dir+"/", "./cmd/...", "./test/lab/cmd/..."); err != nil {
		return err
	}
	for _, s := range suites {
		for _, tag := range s.Faulty {
			if err := buildProgram(ctx, filepath.Join(dir, "gotgtd-"+tag), "-tags", tag, "./cmd/gotgtd"); err != nil {
				return err
			}
		}
	}
	return nil
}

// buildProgram builds programs that are static, for there is no telling which libraries a
// machine has.
func buildProgram(ctx context.Context, out string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags", "-s -w -X main.version=lab", "-o", out}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.WaitDelay = stopTime
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("can't build the programs: %w\n%s", err, text)
	}
	return nil
}

// arguments are the command's for one of the suites.
func (o options) arguments(s Suite) []string {
	return []string{"-short=" + strconv.FormatBool(o.short), "-cuts=" + strconv.Itoa(o.cuts), "-out=" + o.out, s.Name}
}

// runSuites runs the suites, all of them whatever fails, and returns their outcomes in the order
// of the suites: first those that run alone, then the others, as many at a time as the
// options say. What those print is kept until their end if there can be more than one of them at a time.
func runSuites(w io.Writer, o options, run func(s Suite, out io.Writer) outcome) []outcome {
	outcomes := make([]outcome, len(o.suites))
	for i, s := range o.suites {
		if s.Alone || o.sideBySide == 1 {
			outcomes[i] = run(s, w)
		}
	}
	if o.sideBySide == 1 {
		return outcomes
	}
	var printing sync.Mutex // held while what a suite has printed is shown
	var group errgroup.Group
	group.SetLimit(o.sideBySide)
	for i, s := range o.suites {
		if s.Alone {
			continue
		}
		group.Go(func() error {
			var out bytes.Buffer
			outcomes[i] = run(s, &out)
			printing.Lock()
			defer printing.Unlock()
			_, err := w.Write(out.Bytes())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		outcomes = append(outcomes, outcome{Failed: 1, Summary: fmt.Sprintf("can't print what the suites say: %v\n", err)})
	}
	return outcomes
}

// runInside runs the suite that is asked for, and leaves its outcome in the work folder.
func runInside(ctx context.Context, o options, work string) (int, error) {
	if err := furnish(ctx); err != nil {
		return 1, err
	}
	s := o.suites[0]
	l := &Lab{
		Short: o.short, Cuts: o.cuts, Dir: filepath.Join(work, s.Name), out: os.Stdout,
		image: filepath.Join(work, "image"), programs: filepath.Join(work, "programs"),
	}
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		return 1, err
	}
	found, err := run(ctx, s, l).outcome(o.out)
	if err := errors.Join(err, found.write(work, s)); err != nil {
		return 1, err
	}
	return 0, nil
}
