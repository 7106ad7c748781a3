// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

const clusterIQN = "iqn.2026-11.test:cluster"

// tools is gotgtd under the names of tgt's tools, first in PATH.
type tools struct {
	gotgtd     *peer.Gotgtd
	env        []string
	supervisor []string // a command line of upgraded's, but for the command
}

// startTools starts gotgtd under upgraded, whose run command may have more flags.
func startTools(t *testing.T, flags ...string) *tools {
	t.Helper()
	return startToolsOn(t, peer.Options{Config: peer.OneDisk(sparse(t, "file.img", 16<<20), "")}, flags...)
}

// startToolsOn is startTools with a configuration.
func startToolsOn(t *testing.T, o peer.Options, flags ...string) *tools {
	t.Helper()
	if *onTgt {
		t.Fatal("these tests are of gotgtd's own tools")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tgtadm", "tgt-admin"} {
		if err := os.Symlink(gotgtd(t), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Each operation is an upgrade: a supervisor keeps track of the process that serves.
	upgraded := upgradedProgram.Path(t)
	control := []string{"--control", filepath.Join(dir, "upgraded.sock")}
	supervised := slices.Concat([]string{upgraded, "run"}, control, flags, []string{"--"})
	o.Dir, o.Env = dir, supervised
	target := start(t, o)
	g := target.(*peer.Gotgtd)
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin", "GOTGTD_CONTROL="+g.Control())
	return &tools{g, env, append([]string{upgraded}, control...)}
}

// restart stops gotgtd and starts it.
func (s *tools) restart(t *testing.T) {
	t.Helper()
	must(t, s.supervisor[0], append(s.supervisor[1:], "restart")...)
}

// gotgtctl runs one of gotgtd's own commands.
func (s *tools) gotgtctl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, gotgtd(t), append(args, "--control", s.gotgtd.Control())...)
}

// run runs a program and returns its output and exit status.
func (s *tools) run(t *testing.T, env []string, program string, args ...string) (string, int) {
	t.Helper()
	path := program
	if !strings.Contains(program, "/") {
		bin, _, _ := strings.Cut(strings.TrimPrefix(s.env[len(s.env)-2], "PATH="), ":")
		path = filepath.Join(bin, program)
	}
	c := exec.CommandContext(t.Context(), path, args...)
	c.Env = append(append([]string{}, s.env...), env...)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

func (s *tools) must(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, code := s.run(t, nil, program, args...)
	if code != 0 {
		t.Fatalf("%s %v: exit status %d\n%s", program, args, code, out)
	}
	return out
}

func (s *tools) show(t *testing.T) string {
	t.Helper()
	return s.must(t, "tgtadm", "--lld", "iscsi", "--op", "show", "--mode", "target")
}

// TestResourceAgents is what Pacemaker does with Debian's agents.
func TestResourceAgents(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	disk := sparse(t, "cluster.img", 16<<20)
	ocf := []string{"OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=p", "HA_RSCTMP=" + t.TempDir(), "HA_LOGFACILITY=none", "OCF_RESKEY_implementation=tgt"}
	target := append([]string{"OCF_RESKEY_iqn=" + clusterIQN, "OCF_RESKEY_tid=7", "OCF_RESKEY_allowed_initiators=ALL", "OCF_RESKEY_incoming_username=alice", "OCF_RESKEY_incoming_password=correct-horse-1"}, ocf...)
	unit := append([]string{"OCF_RESKEY_target_iqn=" + clusterIQN, "OCF_RESKEY_lun=3", "OCF_RESKEY_path=" + disk, "OCF_RESKEY_scsi_sn=cluster-disk"}, ocf...)
	agent := func(env []string, name, action string, want int) {
		t.Helper()
		if out, code := s.run(t, env, "/usr/lib/ocf/resource.d/heartbeat/"+name, action); code != want {
			t.Fatalf("%s %s: exit status %d, want %d\n%s", name, action, code, want, out)
		}
	}
	agent(target, "iSCSITarget", "monitor", 7)
	agent(target, "iSCSITarget", "start", 0)
	agent(target, "iSCSITarget", "monitor", 0)
	agent(unit, "iSCSILogicalUnit", "monitor", 7)
	agent(unit, "iSCSILogicalUnit", "start", 0)
	agent(unit, "iSCSILogicalUnit", "monitor", 0)
	contains(t, must(t, "iscsi-inq", "iscsi://alice%correct-horse-1@"+s.gotgtd.Portals()[0]+"/"+clusterIQN+"/3"), "DIRECT_ACCESS")
	contains(t, s.show(t), "SCSI SN: cluster-disk")

	// A reload leaves it alone.
	must(t, gotgtd(t), "upgrade", "--control", s.gotgtd.Control())
	agent(unit, "iSCSILogicalUnit", "monitor", 0)

	agent(unit, "iSCSILogicalUnit", "stop", 0)
	agent(unit, "iSCSILogicalUnit", "monitor", 7)
	agent(target, "iSCSITarget", "stop", 0)
	agent(target, "iSCSITarget", "monitor", 7)
}

// TestCinder is what cinder's tgt driver does: a file for each volume, which the main
// file includes.
func TestCinder(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	dir := t.TempDir()
	volume := "iqn.2010-10.org.openstack:volume-1"
	conf := filepath.Join(dir, "volume-1")
	text := fmt.Sprintf("<target %s>\n    backing-store %s\n    driver iscsi\n    incominguser user correct-horse-1\n    write-cache on\n</target>\n", volume, sparse(t, "volume-1.img", 16<<20))
	main := filepath.Join(dir, "targets.conf")
	for file, text := range map[string]string{conf: text, main: "include " + dir + "/volume-*\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.must(t, "tgt-admin", "--conf", main, "--update", volume)
	contains(t, s.show(t), "Target 2: "+volume)
	contains(t, must(t, "iscsi-inq", "iscsi://user%correct-horse-1@"+s.gotgtd.Portals()[0]+"/"+volume+"/1"), "DIRECT_ACCESS")
	contains(t, s.must(t, "tgt-admin", "--dump"), "<target "+volume+">")
	s.must(t, "tgt-admin", "--conf", main, "--update", volume)
	s.must(t, "tgt-admin", "--force", "--delete", volume)
	if show := s.show(t); strings.Contains(show, volume) {
		t.Errorf("the volume is still there:\n%s", show)
	}
}

// folder is what differs in the paths of files of the same name.
var folder = regexp.MustCompile(`(Backing store path: ).*/`)

// TestTgtadm compares what tgtadm says and its exit status with those of Debian's, which
// talks to Debian's tgtd.
func TestTgtadm(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	image, theirs := sparse(t, "a.img", 8<<20), sparse(t, "a.img", 8<<20) // gotgtd refuses a file that tgtd has open
	foreign := filepath.Join(t.TempDir(), "foreign.img")
	must(t, "qemu-img", "create", "-f", "qcow2", foreign, "64M")
	other := strings.NewReplacer(image, theirs, foreign, theirs)
	tgt := startDebian(t)
	for _, line := range []string{
		"--op new --mode target --tid=2 --targetname iqn.2026-11.test:a",
		"--op new --mode target --tid=2 --targetname iqn.2026-11.test:b",
		"--op new --mode target --tid=3 -Tiqn.2026-11.test:a",
		"--lld iscsi --op new --mode logicalunit --tid=2 --lun=1 -b " + image,
		"--lld iscsi --op new --mode logicalunit --tid=2 --lun=1 -b " + image,
		"--op new --mode logicalunit --tid=2 --lun=2 -b /no/such/file",
		"--op new --mode logicalunit --tid=2 --lun=3 --bsopts format=raw,preallocate=yes,size=8M -b " + foreign, "--op delete --mode logicalunit --tid=2 --lun=3",
		"--op new --mode logicalunit --tid=9 --lun=2 -b " + image,
		"--op update --mode logicalunit --tid=2 --lun=1 --params scsi_sn=def,vendor_id=LINUX", "--op show --mode target",
		"--op update --mode logicalunit --tid=2 --lun=1 --params thin_provisioning=1,rotation_rate=7200", "--op show --mode target",
		"--op delete --mode logicalunit --tid=2 --lun=5",
		"--op bind --mode target --tid=2 -I ALL", "--op bind --mode target --tid=2 -I ALL",
		"--op bind --mode target --tid=2 -Q iqn.2000-01.a:b", "--op unbind --mode target --tid=2 -I 192.0.2.1",
		"--op new --mode account --user u --password correct-horse-1", "--op new --mode account --user u --password p",
		"--op bind --mode account --tid 2 --user u", "--op bind --mode account --tid 2 --user zz",
		"--op show --mode account", "--op show --mode target --tid 9", "--op show --mode conn --tid 2", "--op stat --mode target --tid 2",
		"--op delete --mode conn --tid 2 --sid 1 --cid 0",
		"--op update --mode target --tid 2 --name state --value offline", "--op update --mode target --tid 2 -n state -v ready",
		"--op unbind --mode account --tid 2 --user u", "--op delete --mode account --user u", "--op delete --mode account --user u",
		"--op new --mode account --user d --password correct-horse-1", "--op new --mode account --user e --password correct-horse-2",
		"--op bind --mode account --user d", "--op bind --mode account --user d", "--op bind --mode account --user zz", "--op bind --mode account --tid 0 --user d",
		"--op bind --mode account --user e --outgoing", "--op bind --mode account --user d --outgoing", "--op show --mode account",
		"--op unbind --mode account --user d --outgoing", "--op unbind --mode account --user e --outgoing", "--op unbind --mode account --user zz",
		"--op unbind --mode account --user d", "--op unbind --mode account --user d", "--op bind --mode account --user d",
		"--op delete --mode account --user d", "--op delete --mode account --user e", "--op show --mode account",
		"--op show --mode conn", "--op show --mode conn --tid 9", "--op show --mode session --tid 2", "--op stat --mode target --tid 9", "--op stat --mode system",
		"--op stat --mode logicalunit --tid 2 --lun 1", "--op stat --mode logicalunit --tid 2 --lun 5", "--op stat --mode logicalunit --tid 9 --lun 1",
		"--op stat --mode session --tid 2", "--op stat --mode session --sid 7", "--op stat --mode conn --tid 2 --sid 1 --cid 0", "--op delete --mode session --tid 2 --sid 1",
		"--op delete --mode conn --tid 9 --sid 1 --cid 0", "--op delete --mode conn --sid 1 --cid 0", "--op new --mode conn --tid 2", "--op new --mode session --tid 2",
		"--op update --mode target --tid 2 -n foo -v bar", "--op update --mode target --tid 2 -n state -v foo", "--op update --mode target --tid 2 -n MaxBurstLength -v foo",
		"--op update --mode logicalunit --tid 2 --lun 1 --params foo=bar",
		"--op update --mode system --name State --value ready", "--op update --mode sys --name State --value foo", "--op update --mode system -n foo -v bar",
		"--op update --mode system -n debug -v foo", "--op update --mode system -n debug -v off", "--op update --mode sys -n iSNS -v Off", "--op delete --mode system",
		"--op start --mode lld", "--op start --mode lld --lld iscsi", "--op start --mode lld --lld foo", "--op show --mode lld", "--op new --mode lld",
		"--lld foo --op show --mode target", "--lld iser --op show --mode sys", "--lld foo --op new --mode account --user f --password f",
		"--op delete --mode logicalunit --tid 2 --lun 0", "--op delete --mode logicalunit --tid 2 --lun 1",
		"--op delete --mode target --tid 2", "--op delete --mode target --tid 2",
		"--mode target", "--op show", "--op show --mode foo", "--op foo --mode target", "--op new --mode target", "--op new --mode target --tid 3",
		"--op new --mode target --tid x -T a", "--op new --mode logicalunit --tid 1", "--op bind --mode target --tid 1", "--op new --mode account --user u",
		"--op update --mode target --tid 1", "--op show --mode target --foo", "--mode target --o show", "--mode target --op show --lun 1", "-V",
	} {
		args := strings.Fields(line)
		s.compare(t, tgt, args, strings.Fields(other.Replace(line)))
	}
}

// TestTgtadmSession looks at a session by tgtadm, and ends it.
func TestTgtadmSession(t *testing.T) {
	t.Parallel()
	s, tgt := startTools(t), startDebian(t)
	var sessions []*initiator.Session
	for _, portal := range []string{s.gotgtd.Portals()[0], tgt.Portals()[0]} {
		session, err := initiator.Dial(t.Context(), initiator.Options{Address: portal, TargetName: peer.IQN})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, session)
	}
	for _, line := range []string{
		"--op show --mode conn --tid 1", "--op stat --mode logicalunit --tid 1 --lun 0", "--op delete --mode target --tid 1",
		"--op delete --mode conn --tid 1 --sid 1 --cid 9", "--op delete --mode conn --tid 1 --sid 9 --cid 0", "--op delete --mode conn --tid 9 --sid 1 --cid 0",
		"--op show --mode conn --tid 1",
	} {
		s.compare(t, tgt, strings.Fields(line), strings.Fields(line))
	}
	// tgt counts all commands, gotgtd those that move blocks.
	read := &initiator.Command{CDB: [16]byte{0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0}, LUN: initiator.LUN(1), In: make([]byte, 8*512)}
	if err := sessions[0].Do(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	const head = "tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs\n"
	const idle = "  1   0   1            0      0            0      0            0      0            0      0    0\n"
	const busy = "  1   1   1         4096      1         4096      1            0      0            0      0    0\n"
	for line, want := range map[string]string{
		"--op stat --mode target --tid 1": head + idle + busy, "--op stat --mode system": head + idle + busy,
		"--op stat --mode session --sid 1": head + idle + busy, "--op stat --mode logicalunit --tid 1 --lun 1": head + busy,
	} {
		if got := s.must(t, "tgtadm", strings.Fields(line)...); got != want {
			t.Errorf("tgtadm %s:\n%swant\n%s", line, got, want)
		}
	}
	s.compare(t, tgt, strings.Fields("--op delete --mode conn --tid 1 --sid 1 --cid 0"), strings.Fields("--op delete --mode conn --tid 1 --sid 1 --cid 0"))
	for _, session := range sessions {
		select {
		case <-session.Done():
		case <-time.After(10 * time.Second):
			t.Error("the session goes on")
		}
	}
	s.compare(t, tgt, strings.Fields("--op show --mode conn --tid 1"), strings.Fields("--op show --mode conn --tid 1"))
}

// TestTgtadmParameters sets parameters of sessions by tgtadm, which lists them as
// Debian's does.
func TestTgtadmParameters(t *testing.T) {
	t.Parallel()
	s, tgt := startTools(t), startDebian(t)
	set := map[string]string{"MaxBurstLength": "131072", "FirstBurstLength": "32768", "nop_interval": "7", "MaxOutstandingR2T": "3", "MaxQueueCmd": "16", "HeaderDigest": "CRC32C", "InitialR2T": "No"}
	for _, name := range []string{"MaxBurstLength", "FirstBurstLength", "nop_interval", "MaxOutstandingR2T", "MaxQueueCmd", "HeaderDigest", "InitialR2T"} {
		args := []string{"--op", "update", "--mode", "target", "--tid", "1", "--name", name, "--value", set[name]}
		s.compare(t, tgt, args, args)
	}
	args := []string{"--op", "show", "--mode", "target", "--tid", "1"}
	theirs, _ := debian(t, tgt, args)
	ours := strings.Split(s.must(t, "tgtadm", args...), "\n")
	for i, line := range strings.Split(theirs, "\n") {
		name, value, _ := strings.Cut(line, "=")
		if i >= len(ours) {
			t.Fatalf("%s is missing", name)
		}
		got, value2, _ := strings.Cut(ours[i], "=")
		if got != name || set[name] != "" && (value != set[name] || value2 != value) {
			t.Errorf("line %d is %q, want %q", i, ours[i], line)
		}
	}
}

// TestTgtadmOptions is what tgtadm says of options before it asks a daemon: neither
// program has one here.
func TestTgtadmOptions(t *testing.T) {
	t.Parallel()
	peer.Need(t, "/usr/sbin/tgtadm")
	link := filepath.Join(t.TempDir(), "tgtadm")
	if err := os.Symlink(gotgtd(t), link); err != nil {
		t.Fatal(err)
	}
	nobody := []string{"GOTGTD_CONTROL=" + filepath.Join(t.TempDir(), "none.sock")}
	say := func(path string, args []string) (string, int) {
		c := exec.CommandContext(t.Context(), path, append([]string{"-C", "32767"}, args...)...)
		c.Args[0], c.Env = "tgtadm", append(os.Environ(), nobody...)
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%s %q: %v\n%s", path, args, err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line, exit.ExitCode()
	}
	compare := func(args ...string) {
		want, wantCode := say("/usr/sbin/tgtadm", args)
		got, code := say(link, args)
		if got != want || code != wantCode {
			t.Errorf("tgtadm %q: %q, exit status %d; want %q, %d", args, got, code, want, wantCode)
		}
	}
	for _, mode := range []string{"system", "target", "logicalunit", "portal", "session", "conn", "account", "lld"} {
		for _, op := range []string{"new", "delete", "bind", "unbind", "show", "update", "stat", "start", "stop"} {
			for _, options := range []string{"", "--tid 1", "--tid 0 --lun 1", "--tid 1 --lun 1", "--user u", "--name a --value b", "--param portal=a", "--lld foo --force"} {
				compare(append([]string{"--mode", mode, "--op", op}, strings.Fields(options)...)...)
			}
		}
	}
	for _, number := range []string{"-1", "0x10", "010", "x", "", "65535", "65536", "2147483648", "99999999999"} {
		for _, option := range []string{"-t", "-s", "-c", "-l", "-H", "-C"} {
			compare("--mode", "conn", "--op", "show", option, number)
		}
	}
	compare("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-Y", "x")
}

// compare runs tgtadm with arguments on gotgtd, and Debian's with the like on Debian's tgtd.
func (s *tools) compare(t *testing.T, tgt *peer.Tgt, args, theirs []string) {
	t.Helper()
	want, wantCode := debian(t, tgt, theirs)
	got, code := s.run(t, nil, "tgtadm", args...)
	if lines := strings.Split(got, "\n"); code == 22 && len(lines) == 3 && strings.HasPrefix(lines[1], "(") {
		got = lines[0] + "\n" // the second line is gotgtd's own
	}
	got, want = folder.ReplaceAllString(got, "$1"), folder.ReplaceAllString(want, "$1")
	if got != want || code != wantCode {
		t.Errorf("tgtadm %q: exit status %d:\n%swant %d:\n%s", args, code, got, wantCode, want)
	}
}

// startDebian runs Debian's tgtd, with the same target as gotgtd.
func startDebian(t *testing.T) *peer.Tgt {
	t.Helper()
	peer.Need(t, "/usr/sbin/tgtd")
	tgt, err := peer.StartTgt(t.Context(), peer.Options{Dir: t.TempDir(), Config: peer.OneDisk(sparse(t, "file.img", 16<<20), "")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tgt.Kill)
	return tgt
}

// debian runs Debian's tgtadm.
func debian(t *testing.T, tgt *peer.Tgt, args []string) (string, int) {
	t.Helper()
	c := exec.CommandContext(context.WithoutCancel(t.Context()), "/usr/sbin/tgtadm", append([]string{"-C", tgt.ControlPort()}, args...)...)
	c.Args[0] = "tgtadm"
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}
