// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Driver opens the stores of one kind. A program has those that it imports:
// each registers itself, as those of database/sql do. "file" and "ram" are always
// there.
type Driver struct {
	// Open opens the store that o describes. name is what follows the driver's own
	// name in a backend, "" for nothing: of "gotgt:RemBs" it is RemBs. What o
	// has and the driver has no use for is not looked at. Its errors are [*Error]s.
	Open func(ctx context.Context, name string, o Options) (Store, error)

	// Check returns what speaks against opening a store, as far as that can be said
	// without opening it. nil: nothing can.
	Check func(name string, o Options) error

	// Identify returns what Info will say of the store that o opens, its ID and its size in bytes
	// (0: only opening tells), without opening it. From the ID a reload tells whether a logical unit
	// has the same disk as before. nil: an empty ID, and Options.Size.
	Identify func(name string, o Options) (id string, size int64, err error)

	// Needs and Takes say which of a logical unit's settings the store must have, and
	// which it may have besides. They decide what a configuration is refused for.
	Needs, Takes Setting

	// File returns the file or device whose blocks the store of a path has, so that
	// no other logical unit gets them; "" if the store is known by backend and
	// path alone. nil: always "". A store with neither a name nor a path is its logical
	// unit's own.
	File func(name, path string) string
}

// Setting is a set of settings of a logical unit that say what its store is.
type Setting uint8

// The settings that not every store has.
const (
	SettingName    Setting = 1 << iota // the backend goes on with ":NAME"
	SettingPath                        // Options.Path
	SettingSize                        // Options.Size
	SettingFile                        // all that is about a file: create, direct, io, allow-in-use, preallocate, format
	SettingSync                        // sync
	SettingOptions                     // Options.Parameters
)

var drivers = struct {
	mu     sync.RWMutex
	byName map[string]Driver
}{byName: map[string]Driver{
	"file": {
		Open:  func(_ context.Context, _ string, o Options) (Store, error) { return OpenFile(o) },
		Check: func(_ string, o Options) error { return Check(o) },
		Needs: SettingPath, Takes: SettingSize | SettingFile | SettingSync,
		File:     func(_, path string) string { return path },
		Identify: func(_ string, o Options) (string, int64, error) { return o.identify() },
	},
	"ram": {
		Open:  func(_ context.Context, _ string, o Options) (Store, error) { return NewRAM(o.Size) },
		Needs: SettingSize,
	},
}}

// Look returns what a store's Info will say, its ID and its size, without opening it: see
// [Driver.Identify].
func (d Driver) Look(name string, o Options) (id string, size int64, err error) {
	if d.Identify == nil {
		return "", o.Size, nil
	}
	return d.Identify(name, o)
}

// Register makes a driver known under a name, which must be new and without a
// colon. It is for init functions.
func Register(name string, d Driver) {
	drivers.mu.Lock()
	defer drivers.mu.Unlock()
	if _, twice := drivers.byName[name]; twice || name == "" || strings.Contains(name, ":") || d.Open == nil {
		panic(fmt.Sprintf("storage: can't register a driver %q: its name is taken or has a colon, or it opens nothing", name))
	}
	drivers.byName[name] = d
}

// FindDriver returns the driver of a backend, "DRIVER" or "DRIVER:NAME", and the
// name; false if there is none, or no name where one is needed or a name where
// none is.
func FindDriver(backend string) (d Driver, name string, ok bool) {
	driver, name, named := strings.Cut(backend, ":")
	drivers.mu.RLock()
	defer drivers.mu.RUnlock()
	d, ok = drivers.byName[driver]
	wants := d.Needs&SettingName != 0
	return d, name, ok && wants == named && wants == (name != "")
}

// Drivers returns the backends that there are, those that need a name with
// ":NAME".
func Drivers() []string {
	drivers.mu.RLock()
	defer drivers.mu.RUnlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(drivers.byName)) {
		if drivers.byName[name].Needs&SettingName != 0 {
			name += ":NAME"
		}
		list = append(list, name)
	}
	return list
}

// OpenBackend opens the store of a backend.
func OpenBackend(ctx context.Context, backend string, o Options) (Store, error) {
	d, name, ok := FindDriver(backend)
	if !ok {
		return nil, fmt.Errorf("backend %q is none of %s", backend, strings.Join(Drivers(), ", "))
	}
	return d.Open(ctx, name, o)
}
