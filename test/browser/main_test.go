// SPDX-License-Identifier: Apache-2.0

// Package browser looks at gotgtd's page with Debian's Chromium. `make test` installs it.
package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/test/peer"
)

var (
	update  = flag.Bool("update", false, "write the pictures of docs/page.md anew")
	program = peer.GoProgram("gotgtd", "../../cmd/gotgtd")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(peer.Main(m, program))
}

// patience is how long a test waits for what has to come.
const patience = time.Minute

// daemon is a line of generations of gotgtd.
type daemon struct {
	client *control.Client
	portal string
	page   string // its address

	mu   sync.Mutex // protects pids
	pids []int      // generations that are not collected yet
}

// start runs gotgtd with a configuration of targets until the test ends.
func start(t *testing.T, targets string) *daemon {
	t.Helper()
	return startGuarded(t, targets, "")
}

// startGuarded is start with a file that says who may see the page; "" for everybody.
func startGuarded(t *testing.T, targets, webConfig string) *daemon {
	t.Helper()
	dir := t.TempDir()
	listen, err := peer.FreePort()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "gotgtd.yaml"), fmt.Appendf(nil, "metrics: {listen: %q, web-config: %q}\n%s", listen, webConfig, targets), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	socket, log := filepath.Join(dir, "control.sock"), filepath.Join(dir, "log")
	// Its output goes to a file: a pipe would end with the first generation.
	first, err := peer.Spawn("sh", "-c", `log=$1; shift; exec "$@" >"$log" 2>&1`, "sh", log,
		program.Path(t), "serve", "--config", filepath.Join(dir, "gotgtd.yaml"), "--control", socket, "--state-dir", dir, "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{client: control.NewClient(socket), page: "http://" + listen + "/"}
	t.Cleanup(func() {
		d.stop(t, first)
		if text, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("gotgtd:\n%s", text[max(0, len(text)-4096):])
		}
	})
	until(t, func() error {
		st, err := d.client.Status(t.Context())
		if err == nil {
			d.portal = st.Portals[0].Address.String()
		}
		return err
	})
	return d
}

// stop ends the generation that serves, and collects all of them.
func (d *daemon) stop(t *testing.T, first *peer.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if st, err := d.client.Status(ctx); err != nil {
		t.Errorf("nobody serves at the end: %v", err)
		first.Kill()
	} else if err := unix.Kill(st.PID, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	err := peer.Until(ctx, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.pids = slices.DeleteFunc(d.pids, func(pid int) bool {
			got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
			return got == pid || err == unix.ECHILD && unix.Kill(pid, 0) == unix.ESRCH
		})
		if len(d.pids) > 0 {
			return fmt.Errorf("generations %d are still there", d.pids)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	select {
	case <-first.Done():
	case <-ctx.Done():
		t.Error("the first generation has not ended")
	}
}

// upgrade has the next generation take over.
func (d *daemon) upgrade(t *testing.T) {
	t.Helper()
	r, err := d.client.Upgrade(t.Context(), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.pids = append(d.pids, r.NewPID)
	d.mu.Unlock()
}

// status is what the API says.
func (d *daemon) status(t *testing.T) *control.Status {
	t.Helper()
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// login opens a session until the test ends.
func (d *daemon) login(t *testing.T, target, name, alias string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.portal, TargetName: target, InitiatorName: name, Alias: alias})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// until waits for something to become so.
func until(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := peer.Until(ctx, f); err != nil {
		t.Fatal(err)
	}
}

// browser is a tab of a Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // protects troubles
	troubles []string   // what scripts have not caught, and what the browser complains of
}

// open starts a Chromium. What is to be done before the page is loaded comes first. The test fails if the page's
// script fails, or breaks the policy that it is served with.
func open(t *testing.T, page string, before ...chromedp.Action[chromedp.Void]) *browser {
	t.Helper()
	peer.Need(t, "chromium")
	o := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1400, 1000), chromedp.WSURLReadTimeout(patience), chromedp.IgnoreCertErrors)
	// The browser ends in the cleanup, after which its folder is removed.
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), o...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	b := &browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		defer cancel()
		defer cancelTab()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("the browser does not end: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, s := range b.troubles {
			t.Errorf("the browser says: %s", s)
		}
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.do(append(before, chromedp.Navigate(page))...)
	return b
}

// hear notes what goes wrong in the page.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		b.troubles = append(b.troubles, fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL))
	}
}

// action is a command of the browser's protocol.
func action[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	get(b, chromedp.Steps(actions...))
}

// get is what an action returns.
func get[T any](b *browser, a chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// value is what an expression of JavaScript is.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	return get(b, chromedp.Evaluate[T](expression))
}

// waitFor waits until an expression of JavaScript is true.
func (b *browser) waitFor(expression string) {
	b.t.Helper()
	until(b.t, func() error {
		if !value[bool](b, expression) {
			return fmt.Errorf("not so: %s; the page says: %s", expression, value[string](b, "document.getElementById('live').textContent"))
		}
		return nil
	})
}

// live waits until events arrive.
func (b *browser) live() {
	b.t.Helper()
	b.waitFor("document.getElementById('live').textContent.startsWith('Live')")
}
