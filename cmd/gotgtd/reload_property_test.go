// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// reloadRounds is how many worlds TestReloads makes. -rapid.seed repeats those of a
// failure.
var reloadRounds = flag.Int("reload-rounds", 50, "worlds of the property test of reloads")

// tally counts what the worlds have come to, so that a test which tries nothing is seen.
var tally = make(map[string]int)

// TestReloads: after a reload, whatever a session could address is the same store with
// the same identity, or the plan said otherwise and it was forced. A refused reload
// changes nothing. Random files, configurations and sessions, through the eyes of these.
func TestReloads(t *testing.T) {
	top := memoryFolder(t)
	if err := flag.Set("rapid.checks", fmt.Sprint(*reloadRounds)); err != nil {
		t.Fatal(err)
	}
	clear(tally)
	began := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, top)
		m := drawModel(t)
		w.changeFiles()
		w.configure(m)
		if err := w.start(); err != nil {
			w.explain(err)
			tally["start refused"]++
			return
		}
		w.noNews("a start")
		for range rapid.IntRange(1, 4).Draw(t, "reloads") {
			w.admit()
			next := m.change(t)
			w.changeFiles()
			w.configure(next)
			if w.step() {
				m = next
			}
			w.audit()
		}
		if oneIn(t, 3, "restart") {
			w.configure(m)
			w.restart()
		}
	})
	seen := []string{"start", "refused", "carried out", "nothing to do"}
	if *reloadRounds >= 1000 {
		seen = append(seen, "refused at the last door", "forced", "restart", "can't be")
	}
	for _, what := range seen {
		if tally[what] == 0 {
			t.Errorf("not one time: %s", what)
		}
	}
	t.Logf("in %v: %v", time.Since(began).Round(time.Millisecond), tally)
}

// memoryFolder is a folder in memory, where there is one: the disk is not what is tested.
func memoryFolder(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "reloads")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// admit lets some hosts log in, and some go.
func (w *world) admit() {
	w.hosts = slices.DeleteFunc(w.hosts, func(h *host) bool {
		if !oneIn(w.t, 4, "goes") {
			return false
		}
		w.t.Logf("%v goes", h)
		h.close()
		return true
	})
	quiet := oneIn(w.t, 3, "no logins")
	for i := range modelHosts {
		if !quiet && !oneIn(w.t, 3, "no login") {
			w.login(i, rapid.SampledFrom(modelTargets).Draw(w.t, "target"))
		}
	}
}

// login logs a host in where it has no session yet. That it is refused is no fault.
func (w *world) login(i int, target string) {
	if slices.ContainsFunc(w.hosts, func(h *host) bool { return h.index == i && h.target == target }) {
		return
	}
	h, err := login(w.t.Context(), i, target, w.portal.Addr().String())
	if err != nil {
		return
	}
	w.hosts = append(w.hosts, h)
	w.t.Logf("%v logs in", h)
	if err := h.meet(w.t.Context()); err != nil {
		w.t.Fatalf("%v meets its disks: %v", h, err)
	}
}

// step has the hosts do something, reloads, and looks at everything. It reports
// whether the reload was carried out.
func (w *world) step() bool {
	told := w.use()
	force := oneIn(w.t, 3, "force")
	late := oneIn(w.t, 3, "late login")
	lateIO := oneIn(w.t, 3, "late reads")
	expected, expectedErr := w.plan(told)
	w.checkUses(told, expected)
	was := w.trace()
	locks := w.locked()
	before := slices.Clone(w.hosts)
	lines, err := w.reload(told, force, func() {
		if late {
			at := modelTargets
			for _, c := range expected.Changes {
				if c.Target != "" {
					at = append([]string{c.Target}, at...) // those first where it matters
				}
			}
			w.login(rapid.IntRange(0, len(modelHosts)-1).Draw(w.t, "host"), rapid.SampledFrom(at).Draw(w.t, "target"))
		}
		if lateIO {
			for _, h := range w.hosts {
				for lun, d := range h.disks {
					d.used = h.read(w.t.Context(), lun) == nil || d.used
				}
			}
		}
	})
	for _, h := range w.hosts {
		h.rest()
	}
	w.recent.Store(false)
	w.t.Logf("reload, force %v: %v; the plan:\n%s", force, err, strings.Join(lines, "\n"))
	if lines != nil && (expectedErr != nil || !slices.Equal(lines, expected.Lines())) {
		w.t.Fatalf("gotgtd plan says otherwise than the reload, %v:\n%s", expectedErr, strings.Join(expected.Lines(), "\n"))
	}
	for _, h := range w.hosts[len(before):] {
		h.late = true
	}
	late = len(w.hosts) > len(before) || lateIO
	if err != nil {
		w.refused(err, expected, force, late)
		var hurts *plan.RefusedError
		if left := was.difference(w.trace(), !errors.As(err, &hurts)); left != "" {
			w.t.Fatalf("a refused reload has left: %s", left)
		}
		if now := w.locked(); !slices.Equal(now, locks) {
			w.t.Fatalf("locked were %q, after a refused reload %q", locks, now)
		}
		w.checkSame()
		for _, h := range w.hosts {
			h.late = false
		}
		return false
	}
	if len(expected.Refused()) > 0 && !force {
		w.t.Fatalf("it was carried out, although: %q", expected.Refused())
	}
	tally["carried out"]++
	if len(expected.Refused()) > 0 {
		tally["forced"]++
	}
	if expected.Empty() {
		tally["nothing to do"]++
	}
	w.stampNew()
	w.checkChanged(told, expected)
	for _, h := range slices.Clone(w.hosts) {
		w.checkHost(h, expected, force)
	}
	for _, h := range w.hosts {
		h.late = false
	}
	w.noNews("the same configuration")
	return true
}

// use has hosts read, write and register, and returns what the daemon says that
// runs. Before that, time passes perhaps, so that what they have learnt before counts as
// in use no more.
func (w *world) use() *plan.Running {
	w.daemon.Running() // times what was read and written up to here
	w.recent.Store(true)
	idle := oneIn(w.t, 2, "idle time")
	for _, h := range w.hosts {
		for lun, d := range h.disks {
			d.used = !idle && h.read(w.t.Context(), lun) == nil
		}
	}
	for _, h := range w.hosts {
		for _, lun := range slices.Sorted(maps.Keys(h.disks)) {
			switch rapid.IntRange(0, 5).Draw(w.t, "use") {
			case 1:
				h.disks[lun].used = h.write(w.t.Context(), lun) == nil || h.disks[lun].used
			case 2:
				h.disks[lun].used = h.keepWriting(w.t.Context(), lun) || h.disks[lun].used
			case 3:
				w.register(h, lun)
			}
		}
	}
	return w.daemon.Running()
}

func (w *world) register(h *host, lun uint16) {
	key := rapid.Uint64Range(0, 2).Draw(w.t, "key") // 0: none any more
	if err := h.register(w.t.Context(), lun, key, rapid.Bool().Draw(w.t, "APTPL")); err != nil {
		w.t.Fatalf("%v LUN %d: can't register: %v", h, lun, err)
	}
	w.t.Logf("%v registers key %d with LUN %d", h, key, lun)
	for _, other := range w.hosts {
		if d := other.disks[lun]; other.target == h.target && d != nil {
			_, err := other.probe(w.t.Context(), lun)
			if err == nil {
				var v view
				if v, err = other.learn(w.t.Context(), lun); err == nil {
					d.keys = v.keys
				}
			}
			if err != nil {
				w.t.Fatalf("%v LUN %d: %v", other, lun, err)
			}
			d.used, d.codes = d.stamp != noImage, nil
		}
	}
}

// plan is what `gotgtd plan` prints.
func (w *world) plan(running *plan.Running) (*plan.Plan, error) {
	text, err := json.Marshal(running)
	w.must(err)
	copied := new(plan.Running)
	w.must(json.Unmarshal(text, copied))
	conf, err := config.LoadToPlan(w.configuration(), copied.Numbers(), copied.NotOpen)
	if err != nil {
		return &plan.Plan{}, err
	}
	p, err := planFor(copied, conf)
	if err != nil {
		return &plan.Plan{}, err
	}
	return p, nil
}

// noNews: a plan from what runs to the configuration that it was made of is empty.
func (w *world) noNews(what string) {
	running := w.daemon.Running()
	p, err := w.plan(running)
	if err != nil && w.lacksOne(running) {
		w.explain(err) // two paths may lead to a file that was made just now
		return
	}
	if err != nil || !p.Empty() {
		w.t.Fatalf("after %s there is a plan: %v\n%s", what, err, strings.Join(p.Lines(), "\n"))
	}
	tally["start"]++
}

// refused looks at why a reload was refused.
func (w *world) refused(err error, p *plan.Plan, force, late bool) {
	var hurts *plan.RefusedError
	var replaced *target.ReplacedError
	var taken *target.InUseError
	var lost *target.LostError
	var dismissed *target.DismissedError
	switch {
	case errors.As(err, &hurts):
		tally["refused"]++
		if force || len(p.Refused()) == 0 {
			w.t.Fatalf("refused, force %v, although the plan has nothing of it: %v", force, err)
		}
	case errors.As(err, &replaced), errors.As(err, &taken), errors.As(err, &lost), errors.As(err, &dismissed):
		tally["refused at the last door"]++
		if force || !late {
			w.t.Fatalf("refused at the last door, force %v, late login or read %v: %v", force, late, err)
		}
	default:
		w.explain(err)
		tally["can't be"]++
	}
}

// explain: an error that is no refusal is about the configuration or a file.
func (w *world) explain(err error) {
	var conf config.Errors
	var file *storage.Error
	if !errors.As(err, &conf) && !errors.As(err, &file) {
		w.t.Fatalf("refused for no reason that an administrator knows: %v", err)
	}
}

// conf is what a target is served with.
func (w *world) conf(name string) *config.Target {
	for i := range w.daemon.conf.Targets {
		if t := &w.daemon.conf.Targets[i]; t.Name == name {
			return t
		}
	}
	return nil
}

// restart stops the daemon and starts it anew: what its initiators knew is there under the
// same numbers and identities.
func (w *world) restart() {
	was := w.daemon.Running()
	for _, h := range w.hosts {
		h.close()
	}
	w.hosts = nil
	if err := w.daemon.server.Close(); !errors.Is(err, fs.ErrNotExist) { // a file that was removed can't be flushed
		w.must(err)
	}
	w.daemon = nil
	if err := w.start(); err != nil {
		w.explain(err)
		return
	}
	tally["restart"]++
	now := w.daemon.Running()
	for i, t := range was.Targets {
		for j, l := range t.LUNs {
			n := now.Targets[i].LUNs[j]
			if n.LUN != l.LUN || n.NAA != l.NAA || n.SCSIID != l.SCSIID || n.Serial != l.Serial || n.Path != l.Path {
				w.t.Fatalf("%s LUN %d was %+v and is %+v after a restart", t.Name, l.LUN, l, n)
			}
		}
	}
}
