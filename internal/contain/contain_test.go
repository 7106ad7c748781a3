// SPDX-License-Identifier: Apache-2.0

package contain

import (
	"errors"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	plain := errors.New("plain")
	if err := Call(func() error { return plain }); !errors.Is(err, plain) {
		t.Errorf("an error: %v", err)
	}
	var none []int
	for name, c := range map[string]struct {
		f    func() error
		want string
	}{
		"of the runtime": {func() error { return errors.New(string(rune(none[len(none)]))) }, "index out of range"},
		"a text":         {func() error { panic("by hand") }, "by hand"},
		"a long text":    {func() error { panic(strings.Repeat("x", 1000)) }, strings.Repeat("x", maxValue) + "..."},
	} {
		var p *Panic
		if err := Call(c.f); !errors.As(err, &p) || !strings.Contains(p.Value, c.want) || !strings.Contains(err.Error(), "contain_test.go:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
