// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/plan"
)

// A world is a folder with images, a daemon that serves some of them, generation
// after generation in this process, and the hosts that use it.
type world struct {
	t      *rapid.T
	dir    string // images and the configuration
	state  string // the daemon's folder
	daemon *daemon
	portal *net.TCPListener
	text   bytes.Buffer // of the log of all generations
	log    *slog.Logger
	stamps int
	files  map[string]*os.File // every file that there ever was, by its stamp, open for reading
	hosts  []*host

	recent atomic.Bool // what is read and written now was used just now; otherwise long ago
}

// newWorld makes a folder with images.
func newWorld(t *rapid.T, top string) *world {
	dir, err := os.MkdirTemp(top, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: filepath.Join(dir, "images"), state: filepath.Join(dir, "state"), files: make(map[string]*os.File)}
	w.log = slog.New(slog.NewTextHandler(&w.text, nil))
	t.Cleanup(func() {
		for _, h := range w.hosts {
			h.close()
		}
		if w.daemon != nil {
			w.daemon.server.Close()
		}
		if w.portal != nil {
			w.portal.Close()
		}
		for _, f := range w.files {
			f.Close()
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", w.text.String())
		}
		os.RemoveAll(dir)
	})
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range modelFiles[:len(modelFiles)-1] {
		w.image(name, imageSize*rapid.Int64Range(1, 3).Draw(t, name)+rapid.SampledFrom([]int64{0, 512, 1000}).Draw(t, "more"))
	}
	if w.portal, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// must ends the test with an error of what the world itself does.
func (w *world) must(err error) {
	if err != nil {
		w.t.Fatalf("the test: %v", err)
	}
}

// image puts a new file in the place of name. Its first block tells which file it is.
func (w *world) image(name string, size int64) {
	w.stamps++
	stamp := fmt.Sprintf("image-%d", w.stamps)
	fresh := w.path("fresh")
	w.must(os.WriteFile(fresh, []byte(stamp), 0o600))
	w.must(os.Truncate(fresh, size))
	w.must(os.Rename(fresh, w.path(name)))
	w.know(name, stamp)
	w.t.Logf("%s is %s, %d bytes", name, stamp, size)
}

// stampNew gives the files that the daemon has made a first block as all have.
func (w *world) stampNew() {
	for _, name := range modelFiles {
		if info, err := os.Lstat(w.path(name)); err == nil && info.Mode().IsRegular() && stampOf(w.path(name)) == "" {
			w.stamps++
			stamp := fmt.Sprintf("image-%d", w.stamps)
			f, err := os.OpenFile(w.path(name), os.O_WRONLY, 0)
			w.must(err)
			_, err = f.WriteAt([]byte(stamp), 0)
			w.must(errors.Join(err, f.Close()))
			w.know(name, stamp)
			w.t.Logf("%s was made and is %s", name, stamp)
		}
	}
}

func (w *world) know(name, stamp string) {
	f, err := os.Open(w.path(name))
	w.must(err)
	w.files[stamp] = f
}

// stampOf returns what the file at a path is, empty if it is none of the
// world's: one that the daemon has made.
func stampOf(path string) string {
	b := make([]byte, blockBytes)
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return ""
	}
	return text(b)
}

// text is a block up to its first zero.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// fileChanges are what an administrator does to files under a daemon.
var fileChanges = []variation[*files]{
	{"another file", func(_ *rapid.T, f *files) { f.image(f.a, 2*imageSize) }},
	{"exchange", func(_ *rapid.T, f *files) {
		err := unix.Renameat2(unix.AT_FDCWD, f.path(f.a), unix.AT_FDCWD, f.path(f.b), unix.RENAME_EXCHANGE)
		if err != unix.ENOENT {
			f.must(err)
		}
	}},
	{"mv", func(_ *rapid.T, f *files) {
		if err := os.Rename(f.path(f.a), f.path(f.b)); !errors.Is(err, fs.ErrNotExist) {
			f.must(err)
		}
	}},
	{"hard link", func(_ *rapid.T, f *files) {
		if os.Link(f.path(f.a), f.path("fresh")) == nil {
			f.must(os.Rename(f.path("fresh"), f.path(f.b)))
			os.Remove(f.path("fresh")) // rename(2) leaves it where both were one file
		}
	}},
	{"symbolic link", func(_ *rapid.T, f *files) {
		f.must(os.Symlink(f.a, f.path("fresh")))
		f.must(os.Rename(f.path("fresh"), f.path(f.b)))
	}},
	{"longer", func(_ *rapid.T, f *files) {
		if info, err := os.Stat(f.path(f.a)); err == nil {
			f.must(os.Truncate(f.path(f.a), info.Size()+imageSize))
		}
	}},
	{"rm", func(_ *rapid.T, f *files) { os.Remove(f.path(f.a)) }},
}

// files is a world with the names of those that a change is about.
type files struct {
	*world
	a, b string
}

// changeFiles does a few of them.
func (w *world) changeFiles() {
	for range rapid.IntRange(0, 2).Draw(w.t, "changes of files") {
		c := rapid.SampledFrom(fileChanges).Draw(w.t, "change of files")
		f := &files{w, rapid.SampledFrom(modelFiles).Draw(w.t, "file"), rapid.SampledFrom(modelFiles).Draw(w.t, "other file")}
		w.t.Logf("files: %s %s %s", c.name, f.a, f.b)
		c.make(w.t, f)
	}
}

// configure writes the configuration file.
func (w *world) configure(m *model) {
	text := m.write(w.dir)
	w.t.Logf("configuration:\n%s", text)
	w.must(os.WriteFile(w.configuration(), []byte(text), 0o600))
}

// configuration has no extension, so that its language may change.
func (w *world) configuration() string { return filepath.Join(filepath.Dir(w.dir), "configuration") }

// generation is a daemon without a process of its own.
func (w *world) generation(successor bool) *daemon {
	return &daemon{
		options: &serveOptions{config: w.configuration(), stateDir: w.state}, successor: successor, clock: w.now,
		log: w.log, moved: make(chan struct{}),
	}
}

// build makes the server of a generation.
func build(d *daemon, brief *briefing) error {
	o, err := d.configure(brief)
	if err == nil {
		d.server, err = target.New(o)
	}
	return err
}

// now is the time of reads and writes: long ago, unless a world says otherwise.
func (w *world) now() time.Time {
	if w.recent.Load() {
		return time.Now()
	}
	return time.Now().Add(-plan.RecentIO - time.Minute)
}

// addPortal gives a generation the portal that all have. The socket stays as it is: what
// TCPListener.File returns makes it blocking for a moment, in which an accept of the generation
// that serves would wait for good.
func (w *world) addPortal(d *daemon) {
	raw, err := w.portal.SyscallConn()
	w.must(err)
	var fd int
	var dupErr error
	w.must(raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }))
	w.must(dupErr)
	f := os.NewFile(uintptr(fd), "portal")
	defer f.Close()
	l, err := net.FileListener(f)
	w.must(err)
	w.must(d.server.AddPortal(l, 1, ""))
}

// start starts the first generation, or one after another was stopped.
func (w *world) start() error {
	d := w.generation(false)
	if err := build(d, &briefing{}); err != nil {
		return err
	}
	w.addPortal(d)
	d.server.Serve()
	d.noteNumbers()
	w.daemon = d
	w.stampNew()
	return nil
}

// reload is what SIGHUP does, from the briefing on: told is what it says that
// runs. between is called after the successor has made its plan. The plan's lines are nil
// if it did not come to that.
func (w *world) reload(told *plan.Running, force bool, between func()) (lines []string, err error) {
	text, err := json.Marshal(briefing{Running: told, Force: force})
	w.must(err)
	brief, err := parseBriefing(text)
	w.must(err)
	next := w.generation(true)
	if err := build(next, brief); err != nil {
		return next.plan, err
	}
	w.addPortal(next)
	between()
	if err := handOver(w.t, w.daemon, next); err != nil {
		return next.plan, errors.Join(err, next.server.Close())
	}
	old := w.daemon
	w.daemon = next
	next.server.Serve()
	next.noteNumbers()
	w.must(old.server.Close())
	return next.plan, nil
}

// handOver moves everything from one daemon to another.
func handOver(t *rapid.T, old, next *daemon) error {
	conns, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	defer conns[1].Close()
	taken := make(chan error)
	go func() {
		_, err := next.server.TakeOver(t.Context(), conns[1], "next", next.plan...)
		conns[1].Close()
		taken <- err
	}()
	o := handoff.Options{Version: "old", Kill: func() { conns[1].Close() }}
	_, err = old.server.HandOver(t.Context(), conns[0], o, time.Now(), new(handoff.Report))
	if takeErr := <-taken; takeErr != nil {
		return takeErr
	}
	return err
}

// A trace is what a refused reload must leave as it was: of an image the inode and
// the size, of a file of the daemon's its text.
type trace map[string]struct {
	what string
	size int64
}

func (w *world) trace() trace {
	found := trace{}
	for _, dir := range []string{w.dir, w.state} {
		list, err := os.ReadDir(dir)
		w.must(err)
		for _, e := range list {
			path := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			w.must(unix.Lstat(path, &st))
			f := found[e.Name()]
			f.what, f.size = fmt.Sprintf("inode %d, mode %o", st.Ino, st.Mode), st.Size
			if dir == w.state {
				text, err := os.ReadFile(path)
				w.must(err)
				f.what += "\n" + string(text)
			}
			found[e.Name()] = f
		}
	}
	return found
}

// difference says what is different in another trace, nothing if it is the same. grown
// says that files may have grown: before the plan is known to be refused, they have not.
func (t trace) difference(other trace, grown bool) string {
	var list []string
	for name, was := range t {
		is := other[name]
		if was.what != is.what || was.size > is.size || was.size < is.size && !grown {
			list = append(list, fmt.Sprintf("%s was %s, %d bytes, and is %s, %d bytes", name, was.what, was.size, is.what, is.size))
		}
	}
	for name := range other {
		if _, there := t[name]; !there {
			list = append(list, name+" is new")
		}
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// locked lists the stamps of the files that are locked.
func (w *world) locked() []string {
	var list []string
	for stamp, f := range w.files {
		again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		w.must(err)
		if unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			list = append(list, stamp)
		}
		again.Close()
	}
	slices.Sort(list)
	return list
}

// audit reads what hosts have written: everything of it is in the file that the host
// took it for, or had it no idea, since the disk was not ready.
func (w *world) audit() {
	for stamp, f := range w.files {
		b := make([]byte, blockBytes)
		for i := range modelHosts {
			if _, err := f.ReadAt(b, place(i)); err != nil && err != io.EOF {
				w.t.Fatal(err)
			}
			if tag := text(b); tag != "" && !strings.HasPrefix(tag, stamp+" ") && !strings.HasPrefix(tag, noImage) {
				w.t.Fatalf("%s has a block that %q: it was written to another disk", stamp, tag)
			}
		}
	}
}

// socketPair makes two ends of a handoff socket.
func socketPair() (conns [2]*net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conns, err
	}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return conns, err
		}
		conns[i] = c.(*net.UnixConn)
	}
	return conns, nil
}
