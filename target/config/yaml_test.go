// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// everything uses each key of the format.
const everything = `
ignore-errors: true
portal-groups:
  - tag: 1
    portals:
      - address: 192.0.2.1
      - address: "[2001:db8::1]:3261"
        announce: [Storage.example.com, "2001:db8::7", "203.0.113.5:3261"]
  - tag: 2
    portals:
      - socket: iscsi
discovery:
  users:
    - user: finder
      secret: secret-of-finder
  outgoing: {user: me, secret: secret-of-mine}
  algorithms: [SHA256]
limits:
  sessions: 10
  connections: 20
  logins: 5
  sessions-per-initiator: 3
  sessions-per-address: 4
  logins-per-address: 2
  first-request-timeout: 2
  discovery-sessions: 6
  discovery-timeout: 30s
  login-timeout: 1m
  r2t-timeout: 10s
  memory: 128MiB
include: [included.d/*.yaml]
accounts:
  - {user: host-c, secret: secret-of-host-c}
  - {name: d, user: host-d, secret: secret-of-host-d, initiators: ["iqn.1993-08.org.debian:D*"]}
targets:
  - name: IQN.2015-02.com.stu31:T1
    tid: 7
    alias: the shared disk
    offline: true
    portal-groups: [2, 1]
    access:
      addresses: [ALL, 172.16.31.0/24, 192.0.2.7, "2001:db8::/32"]
      initiators: ["iqn.1993-08.org.debian:*", iqn.2001-04.com.example:a]
      accounts: [host-a]
    auth:
      users:
        - account: d
        - account: host-c
        - {user: host-a, secret: secret-of-host-a, initiators: ["IQN.2001-04.com.example:a"]}
        - {user: host-b, secret-file: host-b.secret}
      outgoing: {user: storage, secret: secret-of-storage}
      algorithms: [sha3-256, md5]
    parameters:
      max-recv-data-segment-length: 64KiB
      max-xmit-data-segment-length: 8192
      max-burst-length: 128K
      first-burst-length: 512
      initial-r2t: true
      immediate-data: false
      max-outstanding-r2t: 1
      max-connections: 2
      header-digest: [CRC32C]
      data-digest: [None]
      default-time2wait: 0
      default-time2retain: 60
      queue-depth: 32
      nop-interval: off
      nop-timeout: 5
    luns:
      - lun: 1
        path: disk.img
        size: 1GiB
        create: true
        write-cache: false
        block-size: 4096
        thin: false
        direct: true
        sync: true
        io: sync
        allow-in-use: true
        preallocate: true
        format: raw
        scsi-id: ID
        serial: "0001"
        naa: 6001405aaaaaaaaa0000000000000001
        vendor: V
        product: P
        revision: "1"
        removable: true
        offline: true
        descriptor-sense: true
        physical-block-exponent: 0
        lowest-aligned-lba: 1
        optimal-transfer-granularity: 8
        optimal-transfer-length: 256
        mode-pages:
          - {page: 2, subpage: 0, data: "80000000000000000000000000000a"}
      - {lun: 2, backend: "gotgt:RemBs", path: "a b", options: {x: y}, read-only: true}
      - {lun: 300, backend: ram, size: 1M, access: {addresses: [192.0.2.7], initiators: ["*:b"], accounts: [host-d]}}
`

func TestYAMLEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host-b.secret"), "secret-of-host-b\n")
	name := filepath.Join(dir, "gotgtd.yaml")
	write(t, name, everything)
	cfg, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, lines(t, cfg.Warnings, name), nil)
	want := &Config{
		IgnoreErrors: true,
		PortalGroups: []PortalGroup{
			{Tag: 1, Portals: []Portal{{Address: "192.0.2.1:3260"}, {Address: "[2001:db8::1]:3261", Announce: []string{"storage.example.com:3260", "[2001:db8::7]:3260", "203.0.113.5:3261"}}}},
			{Tag: 2, Portals: []Portal{{Socket: "iscsi"}}},
		},
		Discovery: Auth{
			Users:      []Account{{User: "finder", Secret: "secret-of-finder"}},
			Outgoing:   &Account{User: "me", Secret: "secret-of-mine"},
			Algorithms: []string{"sha256"},
		},
		Accounts: []SharedAccount{
			{"host-c", Account{User: "host-c", Secret: "secret-of-host-c"}},
			{"d", Account{User: "host-d", Secret: "secret-of-host-d", Initiators: []string{"iqn.1993-08.org.debian:d*"}}},
		},
		Limits: Limits{
			Sessions: 10, Connections: 20, Logins: 5, LoginTimeout: time.Minute, R2TTimeout: 10 * time.Second, Memory: 128 << 20,
			SessionsPerInitiator: 3, SessionsPerAddress: 4, ConnectionsPerAddress: 64, LoginsPerAddress: 2,
			FirstRequestTimeout: 2 * time.Second, DiscoverySessions: 6, DiscoveryTimeout: 30 * time.Second,
		},
		Targets: []Target{everythingTarget(dir)},
	}
	if diff := cmp.Diff(want, cfg, sameConfig); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func everythingTarget(dir string) Target {
	ram := LUN{Number: 300, Backend: "ram", Options: storage.Options{Size: 1 << 20}, Access: Access{
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, Initiators: []string{"*:b"}, Accounts: []string{"host-d"},
	}}
	plugin := LUN{Number: 2, Backend: "gotgt:RemBs", Options: storage.Options{Path: "a b", BlockOptions: storage.BlockOptions{ReadOnly: true}, Parameters: map[string]string{"x": "y"}}}
	for _, l := range []*LUN{&ram, &plugin} {
		l.setDefaults("iqn.2015-02.com.stu31:t1")
	}
	return Target{
		Name: "iqn.2015-02.com.stu31:t1", TID: 7, Alias: "the shared disk", Offline: true,
		PortalGroups: []uint16{2, 1},
		Access: Access{
			All:        true,
			Addresses:  []netip.Prefix{netip.MustParsePrefix("172.16.31.0/24"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32")},
			Initiators: []string{"iqn.1993-08.org.debian:*", "iqn.2001-04.com.example:a"},
			Accounts:   []string{"host-a"},
		},
		Auth: Auth{
			Users: []Account{
				{User: "host-d", Secret: "secret-of-host-d", Shared: "d", Initiators: []string{"iqn.1993-08.org.debian:d*"}},
				{User: "host-c", Secret: "secret-of-host-c", Shared: "host-c"},
				{User: "host-a", Secret: "secret-of-host-a", Initiators: []string{"iqn.2001-04.com.example:a"}},
				{User: "host-b", Secret: "secret-of-host-b", SecretFile: filepath.Join(dir, "host-b.secret")},
			},
			Outgoing:   &Account{User: "storage", Secret: "secret-of-storage"},
			Algorithms: []string{"sha3-256", "md5"},
		},
		Parameters: Parameters{
			MaxRecvDataSegmentLength: 64 << 10, MaxXmitDataSegmentLength: 8192,
			MaxBurstLength: 128 << 10, FirstBurstLength: 512,
			InitialR2T: true, ImmediateData: new(false),
			MaxOutstandingR2T: 1, MaxConnections: 2,
			HeaderDigest: []string{"CRC32C"}, DataDigest: []string{"None"},
			DefaultTime2Wait: new(0), DefaultTime2Retain: new(60),
			QueueDepth: 32, NOPInterval: -1, NOPTimeout: 5 * time.Second,
		},
		LUNs: []LUN{{
			Number: 1, Backend: "file", Options: storage.Options{Path: filepath.Join(dir, "disk.img"), Size: 1 << 30, Create: true, BlockOptions: storage.BlockOptions{BlockSize: 4096, Thin: new(false)}, Direct: true, AllowInUse: true, Preallocate: true, Format: "raw"},
			Sync: true, IO: "sync",
			UnitOptions: scsi.UnitOptions{WriteCache: new(false), SCSIID: "ID", Serial: "0001", NAA: "6001405aaaaaaaaa0000000000000001",
				Vendor: "V", Product: "P", Revision: "1", Removable: true, Offline: true, DescriptorSense: true,
				PhysicalBlockExponent: new(0), LowestAlignedLBA: 1, OptimalTransferGranularity: 8, OptimalTransferLength: 256,
				ModePages: []scsi.ModePage{{Page: 2, Data: []byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0A}}}},
			Access: Access{All: true},
		}, plugin, ram},
	}
}

func TestYAMLDefaults(t *testing.T) {
	cfg := mustParse(t, "/etc/gotgtd.yaml", `
targets:
  - name: iqn.2015-02.com.stu31:t1
    luns: [{lun: 1, path: disk.img}]
  - name: eui.02004567a425678d
    tid: 1
`)
	l := cfg.Targets[0].LUNs[0]
	if l.Path != "/etc/disk.img" || l.Backend != "file" || l.BlockSize != 512 || !*l.WriteCache || l.Thin != nil {
		t.Errorf("LUN %+v", l)
	}
	if l.Vendor != "IET" || l.Product != "VIRTUAL-DISK" || l.Revision != "0001" || len(l.Serial) != 16 || len(l.NAA) != 16 {
		t.Errorf("identity %+v", l)
	}
	if got := cfg.Targets[0].TID; got != 2 {
		t.Errorf("TID %d, want 2, the lowest that is free", got)
	}
	if !cfg.Targets[0].Access.All {
		t.Error("access is not for all by default")
	}
	before := *cfg
	cfg.SetDefaults()
	if diff := cmp.Diff(&before, cfg, sameConfig); diff != "" {
		t.Errorf("SetDefaults for a second time: %s", diff)
	}
}

// The identity of a logical unit stays when other targets come and go.
func TestIdentityIsStable(t *testing.T) {
	one := mustParse(t, "a.yaml", `{targets: [{name: eui.0200000000000002, luns: [{lun: 1, backend: ram, size: 1M}]}]}`)
	two := mustParse(t, "a.yaml", `{targets: [{name: eui.0200000000000001}, {name: eui.0200000000000002, luns: [{lun: 0, backend: ram, size: 1M}, {lun: 1, backend: ram, size: 1M}]}]}`)
	a, b, c := one.Targets[0].LUNs[0], two.Targets[1].LUNs[1], two.Targets[1].LUNs[0]
	if a.NAA != b.NAA || a.Serial != b.Serial || a.SCSIID != b.SCSIID {
		t.Errorf("%+v\n%+v", a, b)
	}
	if a.NAA == c.NAA || a.Serial == c.Serial {
		t.Error("two logical units have one identity")
	}
}

func TestYAMLErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "disk.img"), strings.Repeat("x", 4096))
	write(t, filepath.Join(dir, "empty.img"), "")
	target := "targets:\n  - name: iqn.2001-04.com.example:a\n"
	for i, test := range []struct {
		text string
		want []string
	}{
		{"targets: [", []string{"1:10: "}},
		{"targets: {}\n", []string{"1:10: targets: must be a list, but is a mapping"}},
		{"- a\n", []string{"1:1: must be a mapping, but is a list"}},
		{"targets:\n", []string{"1:1: targets: has no value"}},
		{"a: 1\nlimits:\n  b: 2\n", []string{"1:1: a: unknown key", "3:3: limits.b: unknown key"}},
		{"limits: {sessions: 1, sessions: 2}\n", []string{"1:23: limits.sessions: is given twice"}},
		{"limits:\n  sessions: many\n  memory: 1XB\n  login-timeout: 0\n", []string{
			"2:13: limits.sessions: must be a number, but is text",
			"3:11: limits.memory: \"1XB\" is not a size",
			"4:18: limits.login-timeout: \"0\" is not a time",
		}},
		{"limits: {sessions: 010, logins: -1, connections: 99999999999999999999}\n", []string{
			"1:20: limits.sessions: 010: write a decimal number",
			"1:33: limits.logins: -1 is not in the range",
			"1:50: limits.connections: must be a number",
		}},
		{"limits: {logins-per-address: -1, discovery-sessions: 5000, first-request-timeout: -1s}\n", []string{
			"1:30: limits.logins-per-address: -1 is not in the range", "1:54: limits.discovery-sessions: 5000 is not in the range", "1:83: limits.first-request-timeout: ",
		}},
		{"limits: {memory: 1M}\n", []string{"1:18: limits.memory: must be at least 64MiB"}},
		{"limits: {sessions: 4096, discovery-sessions: 512, memory: 128MiB}\n", []string{
			"1:59: limits.memory: must be at least 148MiB for sessions: 4096, logins: 128 and discovery-sessions: 512, 32KiB for each: raise it or lower these",
		}},
		{"limits: {sessions: 60000}\n", []string{"1:9: limits.memory: must be at least 1881MiB for sessions: 60000, logins: 128 and discovery-sessions: 64, 32KiB for each: raise it or lower these"}},
		{"ignore-errors: 'yes'\n", []string{"1:16: ignore-errors: must be true or false"}},
		{"ignore-errors: &a true\n", []string{"1:16: ignore-errors: must be true or false, but is an anchor"}},
		{"a: 1\n---\nb: 2\n", []string{"3:2: a second document"}},
		{target + "    task-management: mine\n", []string{"3:22: targets[0].task-management: \"mine\" is none of own, all"}},
		{"portal-groups:\n  - tag: 0\n    portals:\n      - address: host.example:3260\n  - tag: 70000\n", []string{
			"2:10: portal-groups[0].tag: 0 is not in the range from 1 to 65535",
			"4:18: portal-groups[0].portals[0].address: \"host.example:3260\" is not an IP address",
			"5:5: portal-groups[1].portals: is missing",
			"5:10: portal-groups[1].tag: 70000 is not in the range from 1 to 65535",
		}},
		{"portal-groups:\n  - {tag: 1, portals: [{address: 1.2.3.4, socket: x}, {}, {socket: 'a:b'}]}\n  - {tag: 1, portals: [{address: 1.2.3.4}, {address: '1.2.3.4:3260'}]}\n", []string{
			"2:24: portal-groups[0].portals[0]: must have an address or the name of a socket",
			"2:55: portal-groups[0].portals[1]: must have an address or the name of a socket",
			"2:68: portal-groups[0].portals[2].socket: \"a:b\" can't be",
			"3:11: portal-groups[1].tag: portal group 1 is defined already at FILE:2:11",
			"3:44: portal-groups[1].portals[1]: is the same portal as at FILE:3:24",
		}},
		{"portal-groups:\n  - tag: 1\n    portals:\n      - {address: '1.2.3.4:0', announce: ['0.0.0.0:3260', 5.6.7.8]}\n      - {address: 1.2.3.5, announce: [5.6.7.8]}\n  - {tag: 2, portals: [{socket: x, announce: ['5.6.7.8:3260', '']}]}\n", []string{
			"4:43: portal-groups[0].portals[0].announce[0]: \"0.0.0.0:3260\" is every address",
			"6:47: portal-groups[1].portals[0].announce[0]: 5.6.7.8:3260 is announced for portal group 1 already at FILE:5:39",
			"6:63: portal-groups[1].portals[0].announce[1]: \"\" is not an address",
		}},
		{"targets:\n  - {luns: [], tid: 1}\n  - name: iqn.2001-04.example\n    tid: 1\n  - name: eui.123\n  - name: naa.4000000000000000\n  - name: disk\n", []string{
			"2:5: targets[0].name: is missing",
			"4:10: targets[1].tid: 1 is the TID of the target at FILE:2:21 already",
			"5:11: targets[2].name: \"eui.123\" is not an EUI-64 name",
			"6:11: targets[3].name: \"naa.4000000000000000\" is not an NAA name",
			"7:11: targets[4].name: \"disk\" is not an iSCSI name",
		}},
		{"targets:\n  - name: iqn.2001-13.com.example:a\n  - name: iqn.2001-12.com.example:a b\n", []string{
			"2:11: targets[0].name: \"iqn.2001-13.com.example:a\" is not an iSCSI qualified name",
			"3:11: targets[1].name: \"iqn.2001-12.com.example:a b\" has ' ' in it",
		}},
		{target + "  - name: IQN.2001-04.com.example:A\n", []string{
			"3:11: targets[1].name: target \"iqn.2001-04.com.example:a\" is defined already at FILE:2:11",
		}},
		{target + "    portal-groups: [1]\n    access:\n      addresses: [10.0.0.0/33, fe80::1%eth0, all]\n      initiators: ['[', x, '']\n", []string{
			"3:21: targets[0].portal-groups[0]: there is no portal group 1",
			"5:19: targets[0].access.addresses[0]: \"10.0.0.0/33\" is not a network",
			"5:32: targets[0].access.addresses[1]: \"fe80::1%eth0\" is neither",
			"5:46: targets[0].access.addresses[2]: \"all\" is neither",
			"6:20: targets[0].access.initiators[0]: \"[\" is not a pattern",
			"6:25: targets[0].access.initiators[1]: \"x\" is not an iSCSI name",
			"6:28: targets[0].access.initiators[2]: \"\" is not an iSCSI name",
		}},
		{target + "    auth:\n      outgoing: {user: o, secret: 0123456789ab}\n", []string{
			"4:17: targets[0].auth.outgoing: the target proves itself only to initiators that have",
		}},
		{target + "    auth:\n      users:\n        - {user: a, secret: 0123456789abc}\n        - {user: a, secret: abc0123456789}\n        - {secret: 12}\n        - {user: b}\n        - {user: c, secret: x, secret-file: y}\n      outgoing: {user: o, secret: 0123456789abc}\n      algorithms: [crc32]\n", []string{
			"6:18: targets[0].auth.users[1].user: \"a\" has an account already at FILE:5:18",
			"7:11: targets[0].auth.users[2].user: is missing",
			"7:20: targets[0].auth.users[2].secret: must be text: put it into quotes",
			"8:11: targets[0].auth.users[3].secret: is missing",
			"9:45: targets[0].auth.users[4].secret-file: is given beside secret",
			"10:35: targets[0].auth.outgoing.secret: is the secret of user \"a\" as well",
			"11:20: targets[0].auth.algorithms[0]: \"crc32\" is none of md5, sha1",
		}},
		{target + "    parameters:\n      max-burst-length: 511\n      first-burst-length: 1MiB\n      max-connections: 9\n      header-digest: [CRC32]\n      data-digest: [None, None]\n      default-time2wait: 3601\n      nop-timeout: off\n      queue-depth: 4097\n", []string{
			"4:25: targets[0].parameters.max-burst-length: 511 is not in the range",
			"5:27: targets[0].parameters.first-burst-length: 1048576 is more than MaxBurstLength, 511",
			"6:24: targets[0].parameters.max-connections: 9 is not in the range from 1 to 8",
			"7:23: targets[0].parameters.header-digest[0]: \"CRC32\" is none of CRC32C, None",
			"8:27: targets[0].parameters.data-digest[1]: None is given twice",
			"9:26: targets[0].parameters.default-time2wait: 3601 is not in the range",
			"10:20: targets[0].parameters.nop-timeout: must be a time",
			"11:20: targets[0].parameters.queue-depth: 4097 is not in the range",
		}},
		{target + "    luns:\n      - path: disk.img\n      - {lun: 1}\n      - {lun: 1, path: none.img}\n      - {lun: 16384, path: empty.img}\n      - {lun: 2, path: no/disk.img, create: true, size: 1000}\n      - {lun: 3, path: /dev/null}\n      - {lun: 4, path: .}\n", []string{
			"4:9: targets[0].luns[0].lun: is missing",
			"5:9: targets[0].luns[1].path: is missing",
			"6:15: targets[0].luns[2].lun: LUN 1 is defined already at FILE:5:15",
			"6:24: targets[0].luns[2].path: can't find \"DIR/none.img\": no such file or directory (to have the file made, give size and create: true)",
			"7:15: targets[0].luns[3].lun: 16384 is not in the range from 0 to 16383",
			"7:28: targets[0].luns[3].path: can't serve \"DIR/empty.img\": it is empty",
			"8:24: targets[0].luns[4].path: can't make \"DIR/no/disk.img\": its folder \"DIR/no\" is missing",
			"8:57: targets[0].luns[4].size: 1000 bytes is not a multiple of the block size, 512",
			"9:24: targets[0].luns[5].path: can't serve \"/dev/null\": it is neither",
			"10:24: targets[0].luns[6].path: can't serve \"DIR\": it is neither",
		}},
		{target + "    luns:\n      - {lun: 1, backend: tape}\n      - {lun: 2, backend: ram, path: x}\n      - {lun: 3, backend: ram, size: 1M, direct: true, options: {a: b}}\n      - {lun: 4, backend: 'gotgt:'}\n      - {lun: 5, backend: 'gotgt:null', naa: 12}\n      - {lun: 6, backend: ram, size: 1000, naa: '3000000000000001', block-size: 513}\n      - {lun: 7, backend: ram, size: 1M, naa: '3000000000000001', vendor: too long a name, revision: ä}\n", []string{
			"4:27: targets[0].luns[0].backend: \"tape\" is none of file, gotgt:NAME, ram",
			"5:9: targets[0].luns[1].size: is missing",
			"5:38: targets[0].luns[1].path: backend ram has no path",
			"6:9: targets[0].luns[2]: create, direct, io, allow-in-use, preallocate and format have no meaning for backend ram",
			"6:65: targets[0].luns[2].options: backend ram has no options",
			"7:27: targets[0].luns[3].backend: \"gotgt:\" is none of",
			"8:9: targets[0].luns[4].path: is missing",
			"8:46: targets[0].luns[4].naa: an NAA identifier begins with",
			"9:81: targets[0].luns[5].block-size: 513 is neither 512 nor 4096",
			"10:47: targets[0].luns[6].naa: 3000000000000001 is the identifier of the logical unit at FILE:9:49 already",
			"10:75: targets[0].luns[6].vendor: \"too long a name\" has 15 characters, more than 8",
			"10:102: targets[0].luns[6].revision: \"ä\" has characters in it",
		}},
		{target + "    luns:\n      - {lun: 1, backend: 'gotgt:x', path: a, create: true}\n      - {lun: 2, backend: 'gotgt:file', path: none.img, size: 1000}\n      - {lun: 3, path: disk.img}\n      - {lun: 4, backend: 'gotgt:file', path: DIR/disk.img}\n      - {lun: 5, backend: 'gotgt:null', path: x, size: 1M}\n      - {lun: 6, backend: 'gotgt:null', path: x, size: 1M}\n", []string{
			"4:9: targets[0].luns[0]: create, direct, io, allow-in-use, preallocate and format have no meaning for backend gotgt:x",
			"4:27: targets[0].luns[0].backend: can't make the gotgt plug-in \"x\": Backend storage x is not found.",
			"5:47: targets[0].luns[1].path: can't find \"none.img\": no such file",
			"5:63: targets[0].luns[1].size: 1000 bytes is not a multiple of the block size, 512",
			"7:47: targets[0].luns[3].path: \"DIR/disk.img\" is behind the logical unit at FILE:6:24 already",
			"9:47: targets[0].luns[5].path: \"x\" is behind the logical unit at FILE:8:47 already",
		}},
		{target + "    luns:\n      - {lun: 1, path: disk.img, sync: true, write-cache: true, io: aio, physical-block-exponent: 16, lowest-aligned-lba: 16384}\n      - lun: 2\n        path: ./disk.img\n        create: true\n        read-only: true\n        mode-pages: [{page: 63, data: zz}, {page: 1, data: '00'}, {page: 1, data: '01'}]\n", []string{
			"4:59: targets[0].luns[0].write-cache: can't be on together with sync",
			"4:69: targets[0].luns[0].io: \"aio\" is none of sync",
			"4:99: targets[0].luns[0].physical-block-exponent: 16 is not in the range",
			"4:123: targets[0].luns[0].lowest-aligned-lba: 16384 is not in the range",
			"6:15: targets[0].luns[1].path: \"DIR/disk.img\" is behind the logical unit at FILE:4:24 already",
			"9:29: targets[0].luns[1].mode-pages[0].page: 63 is not in the range",
			"9:39: targets[0].luns[1].mode-pages[0].data: must be bytes as hexadecimal digits",
			"9:67: targets[0].luns[1].mode-pages[2]: mode page 01h, subpage 00h is given twice",
		}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			name := filepath.Join(dir, "gotgtd.yaml")
			write(t, name, strings.ReplaceAll(test.text, "DIR", dir))
			_, err := Load(name)
			var want []string
			for _, s := range test.want {
				want = append(want, strings.NewReplacer("FILE", name, "DIR", dir).Replace(s))
			}
			checkLines(t, lines(t, err, name), want)
		})
	}
}

func init() {
	open := func(context.Context, string, storage.Options) (storage.Store, error) {
		return nil, errors.ErrUnsupported
	}
	storage.Register("text", storage.Driver{Open: open, Needs: storage.SettingName})
	storage.Register("zero", storage.Driver{Open: open, Needs: storage.SettingSize})
}

// A driver decides by what it needs and takes, and by nothing else. Stores with neither
// name nor path may be any number.
func TestDriverSettings(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gotgtd.yaml")
	write(t, name, "targets:\n  - name: iqn.2026-11.test:a\n    luns:\n"+
		"      - {lun: 1, backend: zero, size: 1M}\n      - {lun: 2, backend: zero, size: 1M}\n      - {lun: 3, backend: zero, path: x}\n"+
		"      - {lun: 4, backend: 'text:a'}\n      - {lun: 5, backend: 'text:b', size: 1000}\n      - {lun: 6, backend: 'text:a'}\n")
	_, err := Load(name)
	checkLines(t, lines(t, err, name), []string{
		"6:9: targets[0].luns[2].size: is missing",
		"6:39: targets[0].luns[2].path: backend zero has no path",
		"8:43: targets[0].luns[4].size: backend text:b has a size of its own",
		"9:27: targets[0].luns[5].backend: \"text:a\" is behind the logical unit at " + name + ":7:27 already",
	})
}

// What speaks against opening a store is an error, but not of a process that
// opens it next.
func TestStoreIsChecked(t *testing.T) {
	fake := system{
		find:     storage.FindDriver,
		identify: func(*LUN) (store, error) { return store{device: 1}, nil },
		check: func(o storage.Options) error {
			if o.AllowInUse {
				return nil
			}
			return errors.New("is in use")
		},
	}
	for _, test := range []struct{ allowed, starting bool }{{}, {allowed: true}, {starting: true}} {
		cfg := &Config{Targets: []Target{{Name: "eui.0200000000000001", LUNs: []LUN{{Options: storage.Options{Path: "/dev/mounted", AllowInUse: test.allowed}}}}}}
		cfg.SetDefaults()
		v := &validator{cfg: cfg, system: fake, validation: validation{starting: test.starting}, naas: map[string]namedLUN{}, stores: map[store]string{}}
		v.targets()
		if want := !test.allowed && !test.starting; (len(v.errs) > 0) != want {
			t.Errorf("%+v: %v", test, v.errs)
		}
		for _, e := range v.errs {
			if !e.Unavailable {
				t.Errorf("%v: is not marked as a matter of the store", e)
			}
		}
	}
}

// A process that opens the stores next loads a configuration whose files are
// not there, but not one that is wrong.
func TestLoadToServe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gotgtd.yaml")
	text := "targets:\n  - name: iqn.2026-11.test:a\n    luns:\n      - lun: 1\n        path: missing.img\n"
	write(t, name, text)
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "5:15: targets[0].luns[0].path: can't find") {
		t.Errorf("Load: %v", err)
	}
	if _, err := LoadToServe(name, nil); err != nil {
		t.Errorf("LoadToServe: %v", err)
	}
	write(t, name, text+"        block-size: 1000\n")
	if _, err := LoadToServe(name, nil); err == nil || strings.Contains(err.Error(), "missing.img") {
		t.Errorf("LoadToServe of a wrong one: %v", err)
	}
}

func TestFilesSize(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "odd.img"), strings.Repeat("x", 4096+1000))
	for _, test := range []struct{ lun, err, warning string }{
		{"path: odd.img", "", "has 5096 bytes, no multiple of the block size, 512: the last 488 bytes are left out"},
		{"{path: odd.img, size: 8192}", "", ""},
		{"{path: odd.img, size: 4096}", "never shrunk", ""},
		{"{path: odd.img, size: 4096, read-only: true}", "", "the last 488 bytes"},
		{"{path: odd.img, read-only: true, create: true}", "", "the last 488 bytes"},
		{"{path: none.img, read-only: true, create: true}", "a file that is made read-only would stay empty", ""},
		{"{path: odd.img, preallocate: true}", "needs a size", "the last 488 bytes"},
		{"{path: odd.img, format: qcow2}", "is none of raw", "the last 488 bytes"},
	} {
		lun := strings.TrimSuffix(strings.TrimPrefix(test.lun, "{"), "}")
		cfg, err := Parse(filepath.Join(dir, "a.yaml"), []byte("targets: [{name: iqn.2026-11.test:a, luns: [{lun: 1, "+lun+"}]}]"))
		if err != nil {
			t.Errorf("%s: %v", test.lun, err)
			continue
		}
		err = cfg.Validate()
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.lun, err, test.err)
		}
		if w := cfg.Warnings.Error(); (w != "") != (test.warning != "") || !strings.Contains(w, test.warning) {
			t.Errorf("%s: warning %q, want %q", test.lun, w, test.warning)
		}
	}
}

// Space that is taken on purpose is not given back by UNMAP, unless that is
// asked for.
func TestPreallocateIsNotThin(t *testing.T) {
	for _, thin := range []*bool{nil, new(true)} {
		l := LUN{Options: storage.Options{Preallocate: true, BlockOptions: storage.BlockOptions{Thin: thin}}}
		l.setDefaults("iqn.2026-11.test:a")
		if want := thin != nil; l.Thin == nil || *l.Thin != want {
			t.Errorf("thin is %v, want %v", l.Thin, want)
		}
	}
}

// What would make a parser recurse or take long ends early.
func TestYAMLBounds(t *testing.T) {
	for _, text := range []string{"[", "{a: ", "- ", "? ", "&a ", "!a "} {
		_, err := Parse("a.yaml", []byte(strings.Repeat(text, 100_000)))
		if err == nil || !strings.Contains(err.Error(), "nested too deep") {
			t.Errorf("%q: %v", text, err)
		}
	}
	var deep strings.Builder
	for i := range 1000 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	if _, err := Parse("a.yaml", []byte(deep.String())); err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Errorf("by indentation: %v", err)
	}
}
