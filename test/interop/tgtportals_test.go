// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestTgtadmPortals opens and closes portals, beside Debian's tgtadm.
func TestTgtadmPortals(t *testing.T) {
	t.Parallel()
	s, tgt := startTools(t), startDebian(t)
	ours, theirs := freePort(t), freePort(t)
	for _, line := range []string{
		"--lld iscsi --op new --mode portal --param portal=ADDRESS", "--op new --mode portal --param portal=ADDRESS",
		"--op new --mode portal --param portal=192.0.2.77:1", "--op new --mode portal --param portal=foo", "--op new --mode portal --param foo=bar",
		"--op delete --mode portal --param portal=ADDRESS", "--op delete --mode portal --param portal=ADDRESS",
		"--op new --mode portal --param portal=ADDRESS",
	} {
		s.compare(t, tgt, strings.Fields(strings.ReplaceAll(line, "ADDRESS", ours)), strings.Fields(strings.ReplaceAll(line, "ADDRESS", theirs)))
	}
	// Which portal comes first is not the same; gotgtd lists them as the configuration does.
	contains(t, s.must(t, "tgtadm", "--op", "show", "--mode", "portal"), "Portal: "+ours+",1\n")

	// The session of a portal that is closed goes on, as in tgt.
	session, err := initiator.Dial(t.Context(), initiator.Options{Address: ours, TargetName: peer.IQN})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	s.gotgtctl(t, "upgrade")
	contains(t, s.gotgtctl(t, "config", "dump"), "- address: "+strconv.Quote(ours))
	contains(t, must(t, "iscsi-ls", "iscsi://"+ours), peer.IQN)
	// Closed and opened again at once, over and over: the process before has let go of it.
	for range 3 {
		s.must(t, "tgtadm", "--op", "delete", "--mode", "portal", "--param", "portal="+ours)
		if c, err := net.Dial("tcp", ours); err == nil {
			c.Close()
			t.Fatalf("portal %s is deleted, and accepts connections", ours)
		}
		if err := session.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
			t.Fatalf("the portal of a session is deleted: %v", err)
		}
		s.must(t, "tgtadm", "--op", "new", "--mode", "portal", "--param", "portal="+ours)
	}
	contains(t, must(t, "iscsi-ls", "iscsi://"+ours), peer.IQN)

	// The last one can go, too.
	s.must(t, "tgtadm", "--op", "delete", "--mode", "portal", "--param", "portal="+ours)
	s.must(t, "tgtadm", "--op", "delete", "--mode", "portal", "--param", "portal=127.0.0.1:0")
	if out := s.must(t, "tgtadm", "--op", "show", "--mode", "portal"); out != "" {
		t.Errorf("portals are left:\n%s", out)
	}
	contains(t, s.gotgtctl(t, "config", "dump"), "portals: []")
	s.must(t, "tgtadm", "--op", "new", "--mode", "portal", "--param", "portal="+ours)
	contains(t, must(t, "iscsi-ls", "iscsi://"+ours), peer.IQN)

	// A restart knows nothing of all that.
	s.restart(t)
	if out := s.must(t, "tgtadm", "--op", "show", "--mode", "portal"); strings.Contains(out, ours) || !strings.HasPrefix(out, "Portal: 127.0.0.1:") {
		t.Errorf("after a restart there are\n%s", out)
	}
}

// TestTgtadmPassedPortal asks for what only the service manager can do.
func TestTgtadmPassedPortal(t *testing.T) {
	t.Parallel()
	passed := freePort(t)
	s := startTools(t, "--listen", "iscsi="+passed)
	for _, op := range []string{"new", "delete"} {
		out, code := s.run(t, nil, "tgtadm", "--op", op, "--mode", "portal", "--param", "portal="+passed)
		want := fmt.Sprintf("tgtadm: invalid request\n(the socket \"iscsi\", which the service manager has passed, listens for %s: change its ListenStream=, or --listen of upgraded, and restart both)\n", passed)
		if code != 22 || out != want {
			t.Errorf("%s: exit status %d\n%swant 22\n%s", op, code, out, want)
		}
	}
	more := freePort(t)
	s.must(t, "tgtadm", "--op", "new", "--mode", "portal", "--param", "portal="+more)
	for _, portal := range []string{passed, more} {
		contains(t, must(t, "iscsi-ls", "iscsi://"+portal), peer.IQN)
	}
}

// TestTgtadmDiscovery asks for proof in discovery, of both sides.
func TestTgtadmDiscovery(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	portal := s.gotgtd.Portals()[0]
	for _, line := range []string{
		"--op new --mode account --user d --password correct-horse-1", "--op new --mode account --user e --password correct-horse-2",
		"--op bind --mode account --user d", "--op bind --mode account --user e --outgoing",
	} {
		s.must(t, "tgtadm", strings.Fields(line)...)
	}
	contains(t, s.must(t, "tgtadm", "--op", "show", "--mode", "sys"), "    controller\n    Account information:\n\n    d\n    e (outgoing)\niSNS:\n")
	refuses(t, "iscsi-ls", "iscsi://"+portal)
	contains(t, must(t, "iscsi-ls", "iscsi://d%correct-horse-1@"+portal), peer.IQN)
	both := initiator.CHAP{User: "d", Secret: "correct-horse-1", TargetUser: "e", TargetSecret: "correct-horse-2"}
	session, err := initiator.Dial(t.Context(), initiator.Options{Address: portal, Discovery: true, CHAP: both})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	targets, err := session.SendTargets(t.Context(), "All")
	if err != nil || !slices.ContainsFunc(targets, func(p initiator.Portal) bool { return p.Target == peer.IQN }) {
		t.Errorf("found %v, %v", targets, err)
	}
	s.gotgtctl(t, "upgrade")
	refuses(t, "iscsi-ls", "iscsi://"+portal)
	s.must(t, "tgtadm", "--op", "delete", "--mode", "account", "--user", "e")
	s.must(t, "tgtadm", "--op", "delete", "--mode", "account", "--user", "d")
	contains(t, must(t, "iscsi-ls", "iscsi://"+portal), peer.IQN)
}

// freePort is an address at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	address, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
