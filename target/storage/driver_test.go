// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDrivers(t *testing.T) {
	errOpened := errors.New("opened")
	var opened string
	Register("test", Driver{Needs: SettingName | SettingPath, Open: func(_ context.Context, name string, o Options) (Store, error) {
		opened = name + " " + o.Path
		return nil, errOpened
	}})
	if list := Drivers(); !slices.Equal(list, []string{"file", "ram", "test:NAME"}) {
		t.Errorf("Drivers() = %q", list)
	}
	if _, err := OpenBackend(t.Context(), "test:a:b", Options{Path: "x"}); !errors.Is(err, errOpened) || opened != "a:b x" {
		t.Errorf("OpenBackend() = %v, opened %q", err, opened)
	}
	for _, backend := range []string{"", "test", "test:", "ram:x", "file:", "tape"} {
		if _, err := OpenBackend(t.Context(), backend, Options{}); err == nil || !strings.Contains(err.Error(), "none of file, ram, test:NAME") {
			t.Errorf("backend %q: %v", backend, err)
		}
	}
	s, err := OpenBackend(t.Context(), "ram", Options{Size: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, d := range map[string]Driver{"file": {Open: drivers.byName["ram"].Open}, "a:b": {Open: drivers.byName["ram"].Open}, "": {Open: drivers.byName["ram"].Open}, "nothing": {}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a driver %q was registered", name)
				}
			}()
			Register(name, d)
		}()
	}
}
