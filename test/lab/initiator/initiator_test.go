// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
)

// TestConfigurations reads what the steps have gotgtd serve.
func TestConfigurations(t *testing.T) {
	for name, s := range map[string]serves{
		"at the beginning":    {secondPortal: true, online: []int{1}},
		"a logical unit more": {secondPortal: true, online: []int{1, 3}},
		"without a portal":    {online: []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "gotgtd.yaml")
			if err := os.WriteFile(file, []byte(s.config()), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			paths := 1
			if s.secondPortal {
				paths = 2
			}
			for _, target := range c.Targets {
				want := 1
				if target.Name == pathsTarget {
					want = paths
				}
				if len(target.PortalGroups) != want {
					t.Errorf("%s is in the portal groups %v", target.Name, target.PortalGroups)
				}
				if target.Name == onlineTarget && len(target.LUNs) != len(s.online) {
					t.Errorf("%s has the logical units %+v", target.Name, target.LUNs)
				}
			}
		})
	}
}

func TestTargetSession(t *testing.T) {
	const list = `[
		{"target": "iqn.2015-02.com.stu31:disk", "isid": "00023d000002", "tsih": 2},
		{"target": "iqn.2015-02.com.stu31:load", "isid": "00023d000001", "tsih": TSIH,
			"connections": [{"cid": 0, "local": "172.16.31.1:3260", "remote": "172.16.31.11:PORT"}]}]`
	of := func(tsih, port string) string {
		t.Helper()
		s, err := targetSession(strings.NewReplacer("TSIH", tsih, "PORT", port).Replace(list))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := of("7", "40000")
	if again := of("7", "40000"); again != first {
		t.Errorf("the same session is %s and %s", first, again)
	}
	for _, other := range []string{of("8", "40000"), of("7", "40001")} {
		if other == first {
			t.Errorf("another login, and the session is the same: %s", other)
		}
	}
	if s, err := targetSession(`[]`); err == nil {
		t.Errorf("no session is %q", s)
	}
}
