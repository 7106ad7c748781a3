// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What tableflip.go says of tableflip is in the source that this is built with.
func TestTableflipIsAsDescribed(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", "github.com/cloudflare/tableflip").Output()
	if err != nil {
		t.Fatal(err)
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if version != tableflipVersion {
		t.Errorf("tableflip is %s: compare what tableflip.go says of %s", version, tableflipVersion)
	}
	for file, want := range map[string][]string{
		"parent.go": {
			fmt.Sprintf("%q", tableflipVariable),
			fmt.Sprintf("newFile(%d, \"write\")", tableflipReady),
			fmt.Sprintf("newFile(%d, \"read\")", tableflipNames),
		},
		"upgrader.go": {
			`errors.New("` + flipParentLives + `")`, flipFailed + `%s", child, err)`, flipEnded + `", child)`,
			flipTimeout + `", child)`, flipNotReady + `")`, flipUpgrading + `")`, flipUpgraded + `")`, flipStopped + `")`,
		},
	} {
		source, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(source), w) {
				t.Errorf("%s has no %s", file, w)
			}
		}
	}
}

// The errors of tableflip that no successor of a test brings about.
func TestFlipErrors(t *testing.T) {
	for text, want := range map[string]string{
		"can't start child: can't start process echo: fork/exec: text file busy": "is being written",
		"new child pid=7 timed out":   "the successor was not ready in time",
		"process is not ready yet":    "this generation is not ready itself yet",
		"parent hasn't exited":        "the generation before this one has not exited yet",
		"terminating":                 "the process is ending",
		"can't start child: no pipes": "can't start the successor: can't start child: no pipes",
	} {
		if err := explainFlip(errors.New(text)); !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %q, want %q in it", text, err, want)
		}
	}
	for text, want := range map[string]error{"upgrade in progress": ErrUpgrading, "already upgraded": ErrHandedOver} {
		if err := explainFlip(errors.New(text)); !errors.Is(err, want) {
			t.Errorf("%q is %q, want %q", text, err, want)
		}
	}
}
