// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/gotgtd/gotgtd/"

// deps returns the packages that one is linked with.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}

// Who embeds the engine links no gotgt, with its logger, no Ceph, no Prometheus, and nothing that draws on terminals.
func TestEmbeddersLinkNoDrivers(t *testing.T) {
	for _, p := range deps(t, ".") {
		for _, unwanted := range []string{"gostor", "logrus", "ceph", "prometheus", "charm"} {
			if strings.Contains(p, unwanted) {
				t.Errorf("package target is linked with %s", p)
			}
		}
	}
}

// A configuration is decoded into the engine's types, which know nothing of it.
func TestEngineKnowsNoConfiguration(t *testing.T) {
	for _, room := range []string{"./iscsi", "./scsi", "./storage"} {
		if slices.Contains(deps(t, room), module+"target/config") {
			t.Errorf("%s is linked with package config", room)
		}
	}
}

// The rooms of package iscsi know of nothing but what is listed here.
func TestRooms(t *testing.T) {
	const iscsi = module + "target/iscsi"
	for room, want := range map[string][]string{
		"pdu":      {},
		"socket":   {},
		"guess":    {module + "internal/boottime"},
		"schedule": {module + "internal/ranked"},
		"sequence": {iscsi + "/pdu"},
		"transfer": {module + "internal/check", module + "internal/iscsiname", iscsi + "/login", iscsi + "/pdu"},
		"login":    {module + "internal/check", module + "internal/iscsiname", iscsi + "/pdu"},
		"tally": {
			module + "internal/check", module + "internal/descriptor", module + "internal/iscsiname", module + "internal/memfile", module + "internal/ranked", module + "target/account",
			iscsi + "/login", iscsi + "/pdu", iscsi + "/stream", module + "target/mem",
		},
		"stream": {module + "internal/descriptor", module + "internal/memfile", module + "internal/ranked", module + "target/account", iscsi + "/pdu", module + "target/mem"},
	} {
		got := slices.DeleteFunc(deps(t, "./iscsi/"+room), func(p string) bool {
			return !strings.HasPrefix(p, module) || p == iscsi+"/"+room
		})
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("room %s: wanted (-) and linked (+): %s", room, d)
		}
	}
}
