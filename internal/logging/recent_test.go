// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/limit"
)

func TestRecent(t *testing.T) {
	var b bytes.Buffer
	var r Recent
	level := new(slog.LevelVar)
	log := r.Keep(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: level})), level)
	log.Debug("no")
	level.Set(slog.LevelDebug)
	log.With("target", "iqn.t").Debug("yes", "lun", 1)
	if got := r.String(); got != b.String() || !strings.HasSuffix(got, "level=DEBUG msg=yes target=iqn.t lun=1\n") {
		t.Errorf("kept %q, logged %q", got, &b)
	}
	if limit.Logger(limit.Logger(log)) == log {
		t.Error("it is taken for a limited one")
	}
	for i := range 10_000 {
		fmt.Fprintf(&r, "line %d, which is as long as lines are, or a little longer\n", i)
		if got := r.String(); len(got) > recentBytes || i > 0 && !strings.HasSuffix(got, fmt.Sprintf("\nline %d, which is as long as lines are, or a little longer\n", i)) {
			t.Fatalf("after %d lines %d bytes are kept, at the end %.80q", i, len(got), got[len(got)-80:])
		}
	}
	if got := r.String(); len(got) < recentBytes/3 || !strings.HasPrefix(got, "line ") {
		t.Errorf("%d bytes are kept, beginning with %.40q", len(got), got)
	}
	if (*Recent)(nil).String() != "" {
		t.Error("nothing keeps something")
	}
}
