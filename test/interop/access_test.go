// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// serveTwo serves an open target and one with the given access directives, and
// returns the portal, and the URL of the second's LUN 1 with the given user
// ("user%secret@", or nothing) and arguments ("?header_digest=crc32c", or nothing).
func serveTwo(t *testing.T, directives string) (target peer.Target, portal string, url func(user, args string) string) {
	t.Helper()
	config := fmt.Sprintf("<target iqn.2026-01.test:open>\nbacking-store %s\n</target>\n<target %s>\nbacking-store %s\n%s\n</target>\n",
		sparse(t, "open.img", 16<<20), peer.IQN, sparse(t, "disk.img", 16<<20), directives)
	target = start(t, peer.Options{Config: config})
	portal = target.Portals()[0]
	return target, portal, func(user, args string) string {
		return peer.URL(user+portal, peer.IQN, 1) + args
	}
}

// TestCHAP logs in with one-way CHAP, and with wrong and missing credentials.
func TestCHAP(t *testing.T) {
	t.Parallel()
	_, _, url := serveTwo(t, "incominguser alice correct-horse-1\nincominguser bob correct-horse-2")
	contains(t, must(t, "iscsi-inq", url("alice%correct-horse-1@", "")), "DIRECT_ACCESS")
	contains(t, must(t, "iscsi-inq", url("bob%correct-horse-2@", "")), "DIRECT_ACCESS")
	for _, user := range []string{"alice%correct-horse-2@", "alice%correct-horse-@", "carol%correct-horse-1@", ""} {
		refuses(t, "iscsi-inq", url(user, ""))
	}
}

// TestMutualCHAP lets the initiator check the target's secret as well.
func TestMutualCHAP(t *testing.T) {
	t.Parallel()
	_, _, url := serveTwo(t, "incominguser alice correct-horse-1\noutgoinguser target the-target-proves")
	user := "alice%correct-horse-1@"
	contains(t, must(t, "iscsi-inq", url(user, "?target_user=target&target_password=the-target-proves")), "DIRECT_ACCESS")
	refuses(t, "iscsi-inq", url(user, "?target_user=target&target_password=another-secret-1"))
	refuses(t, "iscsi-inq", url("alice%wrong-horse-123@", "?target_user=target&target_password=the-target-proves"))
}

// TestDiscoveryCHAP wants credentials for discovery.
func TestDiscoveryCHAP(t *testing.T) {
	t.Parallel()
	config := "incomingdiscoveryuser finder finders-keepers\n" + peer.OneDisk(sparse(t, "disk.img", 16<<20), "")
	portal := start(t, peer.Options{Config: config}).Portals()[0]
	contains(t, must(t, "iscsi-ls", "iscsi://finder%finders-keepers@"+portal), peer.IQN)
	refuses(t, "iscsi-ls", "iscsi://finder%losers-weepers-1@"+portal)
	refuses(t, "iscsi-ls", "iscsi://"+portal)
}

// TestRefusedInitiators are shown other targets only, can't log in, and leave a
// line in the log that says why.
func TestRefusedInitiators(t *testing.T) {
	t.Parallel()
	const friend, stranger = "iqn.2026-01.test:friend", "iqn.2026-01.test:stranger"
	for _, tc := range []struct{ name, directives, allowed, refused string }{
		{"by name", "initiator-name " + friend, friend, stranger},
		{"by address", "initiator-address 192.0.2.0/24", "", stranger},
		{"address allowed", "initiator-address 127.0.0.0/8", stranger, ""},
		{"everyone", "initiator-address ALL", stranger, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target, portal, url := serveTwo(t, tc.directives)
			if tc.allowed != "" {
				contains(t, must(t, "iscsi-inq", "-i", tc.allowed, url("", "")), "DIRECT_ACCESS")
				contains(t, must(t, "iscsi-ls", "-i", tc.allowed, "iscsi://"+portal), peer.IQN, "iqn.2026-01.test:open")
			}
			if tc.refused != "" {
				refuses(t, "iscsi-inq", "-i", tc.refused, url("", ""))
				out := must(t, "iscsi-ls", "-i", tc.refused, "iscsi://"+portal)
				contains(t, out, "iqn.2026-01.test:open")
				if strings.Contains(out, peer.IQN) {
					t.Errorf("a refused initiator is shown the target:\n%s", out)
				}
				contains(t, target.Log(), tc.refused)
			}
		})
	}
}

// TestMaskedLUN shows LUN 2 to one account, LUN 3 to one name, and LUN 1 to all.
func TestMaskedLUN(t *testing.T) {
	t.Parallel()
	const yaml = `
accounts: [{user: alice, secret: correct-horse-1, initiators: ["iqn.2026-01.test:*"]}]
targets:
  - name: %s
    auth: {users: [{account: alice}, {user: bob, secret: correct-horse-2}]}
    luns:
      - {lun: 1, backend: ram, size: 1MiB}
      - {lun: 2, backend: ram, size: 1MiB, access: {accounts: [alice]}}
      - {lun: 3, backend: ram, size: 1MiB, access: {initiators: ["iqn.2026-01.test:friend"]}}
`
	portal := start(t, peer.Options{YAML: fmt.Sprintf(yaml, peer.IQN)}).Portals()[0]
	const alice, bob = "alice%correct-horse-1@", "bob%correct-horse-2@"
	for _, tc := range []struct {
		user, name string
		sees       [4]bool // by LUN
	}{
		{alice, "iqn.2026-01.test:friend", [4]bool{1: true, 2: true, 3: true}},
		{alice, "iqn.2026-01.test:other", [4]bool{1: true, 2: true}},
		{bob, "iqn.2026-01.test:friend", [4]bool{1: true, 3: true}},
		{bob, "iqn.2026-01.test:other", [4]bool{1: true}},
	} {
		list := must(t, "iscsi-ls", "-s", "-i", tc.name, "iscsi://"+tc.user+portal)
		for n := 1; n <= 3; n++ {
			if got := strings.Contains(list, fmt.Sprintf("Lun:%d ", n)); got != tc.sees[n] {
				t.Errorf("%s%s is shown LUN %d: %v, in:\n%s", tc.user, tc.name, n, got, list)
			}
			url := peer.URL(tc.user+portal, peer.IQN, n)
			if tc.sees[n] {
				contains(t, must(t, "iscsi-inq", "-i", tc.name, url), "DIRECT_ACCESS")
			} else {
				refuses(t, "iscsi-inq", "-i", tc.name, url)
			}
		}
	}
	refuses(t, "iscsi-inq", "-i", "iqn.2026-02.test:friend", peer.URL(alice+portal, peer.IQN, 1))
}

// TestHeaderDigest logs in with both of the digest settings that libiscsi's URLs
// know.
func TestHeaderDigest(t *testing.T) {
	t.Parallel()
	_, _, url := serveTwo(t, "")
	for _, digest := range []string{"none", "crc32c"} {
		t.Run(digest, func(t *testing.T) {
			out := must(t, "iscsi-inq", url("", "?header_digest="+digest))
			contains(t, out, "DIRECT_ACCESS")
		})
	}
}
