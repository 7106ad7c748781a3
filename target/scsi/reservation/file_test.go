// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errDisk = errors.New("the disk has failed")

// memoryDisk is a disk in memory. It fails for good once left steps are done,
// if left is not nil, and a write that fails has written cut bytes.
type memoryDisk struct {
	files map[string][]byte
	left  *int
	cut   int
	steps int
}

// step counts an operation and says whether it fails.
func (m *memoryDisk) step() error {
	m.steps++
	if m.left == nil {
		return nil
	}
	if *m.left--; *m.left < 0 {
		return errDisk
	}
	return nil
}

func (m *memoryDisk) disk() disk {
	return disk{
		read: func(path string) ([]byte, error) {
			if b, found := m.files[path]; found {
				return bytes.Clone(b), nil
			}
			return nil, fs.ErrNotExist
		},
		write: func(path string, content []byte) error {
			err := m.step()
			if err != nil {
				content = content[:min(m.cut, len(content))]
			}
			m.files[path] = bytes.Clone(content)
			return err
		},
		rename: func(from, to string) error {
			if err := m.step(); err != nil {
				return err
			}
			m.files[to] = m.files[from]
			delete(m.files, from)
			return nil
		},
		remove: func(path string) error {
			if err := m.step(); err != nil {
				return err
			}
			if _, found := m.files[path]; !found {
				return fs.ErrNotExist
			}
			delete(m.files, path)
			return nil
		},
		syncDir: func(string) error { return m.step() },
	}
}

// persistent returns what of l's state a power loss leaves.
func persistent(l *Local) Snapshot {
	s := l.Snapshot()
	s.Generation, s.Reserved = 0, nil
	if !s.APTPL {
		return Snapshot{}
	}
	return s
}

// TestPersistence: what is there after a restart, with the real disk.
func TestPersistence(t *testing.T) {
	o := Options{File: filepath.Join(t.TempDir(), "lun")}
	l := newLocal(t, o)
	register(t, l, nexusC, 3)
	if _, err := os.Stat(o.File); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a file without APTPL: %v", err)
	}
	// APTPL counts for the registrations that are there already.
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)))
	reserve(t, l, nexusA, 1, WriteExclusiveRegistrantsOnly)

	again := newLocal(t, o)
	wantKeys(t, again, map[Nexus]uint64{nexusC: 3, nexusA: 1})
	wantHeld(t, again, WriteExclusiveRegistrantsOnly, nexusA)
	wantGeneration(t, again, 0)
	if !again.Check(nexusB, Write) || again.Check(nexusC, Write) {
		t.Error("conflicts are not those of before")
	}
	if info, err := os.Stat(o.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info, err)
	}

	good(t, out(again, nexusA, actionRegister, 0, basicList(1, 1, 0)))
	if _, err := os.Stat(o.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there without APTPL: %v", err)
	}
	wantKeys(t, newLocal(t, o), map[Nexus]uint64{})
}

// TestRealDiskFails: a directory that is gone is sense data, and no change.
func TestRealDiskFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l := newLocal(t, Options{File: filepath.Join(dir, "lun")})
	failed(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)), dir)
	wantKeys(t, l, map[Nexus]uint64{})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)))
	wantKeys(t, newLocal(t, l.options), map[Nexus]uint64{nexusA: 1})
}

// changes are commands that a file is written or removed for.
var changes = map[string]func(l *Local) Result{
	"reserve": func(l *Local) Result { return out(l, nexusA, actionReserve, ExclusiveAccess, basicList(1, 0, 0)) },
	"register": func(l *Local) Result {
		return out(l, nexusB, actionRegister, 0, basicList(0, 2, flagAPTPL))
	},
	"clear":         func(l *Local) Result { return out(l, nexusA, actionClear, 0, basicList(1, 0, 0)) },
	"without APTPL": func(l *Local) Result { return out(l, nexusA, actionRegister, 0, basicList(1, 1, 0)) },
}

// prepared returns a Local on m with A registered and APTPL set, and what will
// be there if it loses power.
func prepared(t *testing.T, m *memoryDisk) *Local {
	t.Helper()
	l := whole(t, open(Options{File: "d/lun"}, m.disk()))
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)))
	return l
}

// TestCrash loses power at every step of a change, and at every byte of its
// write: what is there afterwards is the old state or the new one, and the new
// one once the command has ended with GOOD.
func TestCrash(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			m := &memoryDisk{files: map[string][]byte{}}
			l := prepared(t, m)
			before, files, steps := persistent(l), maps.Clone(m.files), m.steps
			good(t, change(l))
			after, size := persistent(l), len(m.files["d/lun"])
			steps = m.steps - steps
			if steps < 2 {
				t.Fatalf("%d steps to go through", steps)
			}
			for left := range steps + 1 {
				for cut := range size + 1 {
					m := &memoryDisk{files: maps.Clone(files), left: new(left), cut: cut}
					l := whole(t, open(Options{File: "d/lun"}, m.disk()))
					r := change(l)
					m.left = nil // power is back
					survivor := whole(t, open(Options{File: "d/lun"}, m.disk()))
					got := persistent(survivor)
					if (r.Sense != nil) != (left < steps) {
						t.Fatalf("step %d: sense %+v", left, r.Sense)
					}
					if !cmp.Equal(got, after) && (r.Sense == nil || !cmp.Equal(got, before)) {
						t.Fatalf("step %d, cut %d: %+v", left, cut, got)
					}
				}
			}
		})
	}
}

// TestWriteFailure fails one step of a change: the state is unchanged, on the
// disk too, and the next change is kept.
func TestWriteFailure(t *testing.T) {
	for name, change := range changes {
		for fails := range 3 {
			t.Run(name, func(t *testing.T) {
				m := &memoryDisk{files: map[string][]byte{}}
				l := prepared(t, m)
				before := l.Snapshot()
				real, steps := m.disk(), 0
				flaky := func(do func() error) error {
					if steps++; steps == fails+1 {
						return errDisk
					}
					return do()
				}
				l.file.disk.write = func(p string, b []byte) error { return flaky(func() error { return real.write(p, b) }) }
				l.file.disk.rename = func(a, b string) error { return flaky(func() error { return real.rename(a, b) }) }
				l.file.disk.remove = func(p string) error { return flaky(func() error { return real.remove(p) }) }
				l.file.disk.syncDir = func(p string) error { return flaky(func() error { return real.syncDir(p) }) }
				if r := change(l); steps > fails {
					failed(t, r, "d/lun")
					if d := cmp.Diff(before, l.Snapshot()); d != "" {
						t.Fatalf("state (-before +after):\n%s", d)
					}
					checkDisk(t, m, l)
					good(t, change(l))
				}
				checkDisk(t, m, l)
			})
		}
	}
}

// TestWriteFailureUnmended: if what was there can't be put back either, the
// next command that ends with GOOD does, even if it changes nothing.
func TestWriteFailureUnmended(t *testing.T) {
	m := &memoryDisk{files: map[string][]byte{}}
	l := prepared(t, m)
	m.left = new(2) // write and rename, then nothing more
	failed(t, changes["reserve"](l), "d/lun")
	m.left = nil
	wantHeld(t, l, 0, Nexus{})
	good(t, out(l, nexusA, actionRegister, 0, basicList(1, 1, flagAPTPL)))
	checkDisk(t, m, l)
}

// checkDisk fails the test unless m holds what l would have after a restart.
func checkDisk(t *testing.T, m *memoryDisk, l *Local) {
	t.Helper()
	survivor := whole(t, open(Options{File: "d/lun"}, m.disk()))
	if d := cmp.Diff(persistent(l), persistent(survivor)); d != "" {
		t.Fatalf("on disk (-want +got):\n%s", d)
	}
}

// TestDamagedFile: a file that is cut anywhere, or has any bit flipped, costs what was in it and
// nothing more. It stays until there is something to put in its place.
func TestDamagedFile(t *testing.T) {
	m := &memoryDisk{files: map[string][]byte{}}
	l := prepared(t, m)
	reserve(t, l, nexusA, 1, WriteExclusive)
	image := m.files["d/lun"]
	damaged := func(b []byte) {
		t.Helper()
		m.files["d/lun"] = b
		l := open(Options{File: "d/lun"}, m.disk())
		if err := l.Damage(); err == nil || !strings.Contains(err.Error(), `"d/lun"`) {
			t.Fatalf("% x: damage %v", b, err)
		}
		wantKeys(t, l, map[Nexus]uint64{})
		register(t, l, nexusB, 2)
		if !bytes.Equal(m.files["d/lun"], b) || l.Damage() == nil {
			t.Fatalf("% x is gone though nothing was to be kept", b)
		}
		good(t, out(l, nexusB, actionRegister, 0, basicList(2, 3, flagAPTPL)))
		if !bytes.Equal(m.files["d/lun.damaged"], b) || l.Damage() != nil {
			t.Fatalf("% x was not set aside: damage %v", b, l.Damage())
		}
		checkDisk(t, m, l)
	}
	for n := range image {
		damaged(image[:n])
		for bit := range 8 {
			b := bytes.Clone(image)
			b[n] ^= 1 << bit
			damaged(b)
		}
	}
	damaged(append(bytes.Clone(image), 0))
	damaged(encodeFile(Snapshot{Reserved: &nexusA}))
	damaged(encodeFile(Snapshot{Type: WriteExclusive}))
	damaged(frame([]byte("not CBOR")))
}

// TestFileWithBadNames: names that an earlier version let in cost their own registrations and the
// reservation that they held, and nobody else's. Each is told of once, and the file stays as it is until something changes.
func TestFileWithBadNames(t *testing.T) {
	bad, worse := Nexus{Initiator: "iqn.a b"}, Nexus{Initiator: "iqn.\xff", TargetPort: 1}
	s := Snapshot{APTPL: true, Registrations: registeredAs(nexusA, bad, nexusB, worse), Type: WriteExclusive, Holder: &bad}
	m := &memoryDisk{files: map[string][]byte{"d/lun": encodeFile(s)}}
	image := m.files["d/lun"]
	var told [][]string
	l := open(Options{File: "d/lun", Dropped: func(initiators []string) { told = append(told, initiators) }}, m.disk())
	whole(t, l)
	wantKeys(t, l, map[Nexus]uint64{nexusA: s.Registrations[0].Key, nexusB: s.Registrations[2].Key})
	if got := l.Snapshot(); got.Type != 0 || got.Holder != nil {
		t.Errorf("the reservation of a name that counts no longer is held: %+v", got)
	}
	if !bytes.Equal(m.files["d/lun"], image) {
		t.Error("loading has changed the file, which may be another process's")
	}
	third := Nexus{Initiator: "iqn.c d"}
	s.Registrations = append(s.Registrations, registeredAs(third)...)
	if err := l.Restore(s); err != nil {
		t.Fatal(err)
	}
	if want := [][]string{{bad.Initiator, worse.Initiator}, {third.Initiator}}; !cmp.Equal(told, want) {
		t.Errorf("told of %q, want %q", told, want)
	}
	checkDisk(t, m, l)
}

// TestDamagedFileOfPredecessor: what a process hands over counts, whatever its file has become.
func TestDamagedFileOfPredecessor(t *testing.T) {
	m := &memoryDisk{files: map[string][]byte{}}
	predecessor := prepared(t, m)
	m.files["d/lun"] = []byte("damaged")
	successor := open(Options{File: "d/lun"}, m.disk())
	if successor.Damage() == nil {
		t.Fatal("the damage was not found")
	}
	if err := successor.Restore(predecessor.Snapshot()); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, successor, map[Nexus]uint64{nexusA: 1})
	checkDisk(t, m, successor)
	good(t, out(predecessor, nexusB, actionRegister, 0, basicList(0, 2, flagAPTPL))) // it goes on itself
	checkDisk(t, m, predecessor)
}

func TestReadFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lun")
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(Options{File: path}).Damage(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if err := New(Options{File: filepath.Dir(path)}).Damage(); err == nil {
		t.Error("a directory is taken for a file")
	}
}

// TestLinksInTheWay: nothing is written through a symbolic link, nor read through one.
func TestLinksInTheWay(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "lun"), filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, path+".tmp")); err != nil {
		t.Fatal(err)
	}
	l := newLocal(t, Options{File: path})
	failed(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL)), "symbolic link")
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
	l = New(Options{File: path})
	if err := l.Damage(); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("loading through a link: %v", err)
	}
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagAPTPL))) // in place of the link
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the end of the link holds %q, %v", b, err)
	}
}
