// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// manDirectives are the directives that targets.conf(5) documents.
const manDirectives = `target default-driver include ignore-errors control-port iSNSServerIP iSNSAccessControl
iSNSServerPort iSNS incomingdiscoveryuser outgoingdiscoveryuser backing-store direct-store driver initiator-address
initiator-name incominguser outgoinguser controller_tid write-cache scsi_id scsi_sn vendor_id product_id product_rev
sense_format removable path mode_page readonly device-type bs-type allow-in-use block-size lbppbe la_lba
optimal_xfer_gran optimal_xfer_len params`

// adminDirectives are those that tgt-admin knows beyond that.
const adminDirectives = `lun online bsopts bsoflags state MaxRecvDataSegmentLength MaxXmitDataSegmentLength HeaderDigest
DataDigest InitialR2T MaxOutstandingR2T ImmediateData FirstBurstLength MaxBurstLength DataPDUInOrder
DataSequenceInOrder ErrorRecoveryLevel IFMarker OFMarker DefaultTime2Wait DefaultTime2Retain OFMarkInt IFMarkInt
MaxConnections`

// adminParameters are what tgtadm sets in other ways.
const adminParameters = `nop_interval nop_count MaxQueueCmd thin_provisioning rotation_rate`

func inTarget(s string) string { return "<target iqn.2001-04.com.example:a>\n" + s + "\n</target>\n" }

func inLUN(s string) string {
	return inTarget("<backing-store /dev/a>\n" + s + "\n</backing-store>\n")
}

func lunIs(is func(l LUN) bool) func(c *Config) bool {
	return func(c *Config) bool { return is(c.Targets[0].LUNs[0]) }
}

func parametersAre(is func(p Parameters) bool) func(c *Config) bool {
	return func(c *Config) bool { return is(c.Targets[0].Parameters) }
}

func usual(c *Config) bool { return len(c.Targets) < 2 }

// directiveTests have for each directive what is honoured and what is refused.
var directiveTests = map[string][]struct {
	text    string
	is      func(c *Config) bool // nil: refused
	refusal string
}{
	"target": {
		{inTarget(""), func(c *Config) bool { return c.Targets[0].Name == "iqn.2001-04.com.example:a" }, ""},
		{"<target>\n</target>", nil, "1:1: target: the block has no name"},
		{"<target a>\n<target b>\n</target>\n</target>", nil, "2:1: target: a target inside of <target a>"},
		{"<target a>\n", nil, "1:1: target: the block has no end"},
		{"<target a\n", nil, `1:1: "<target a": the closing > is missing`},
		{"</target>\n", nil, "1:1: target: </target> ends a block that did not begin"},
	},
	"default-driver": {
		{"default-driver iscsi\n", usual, ""},
		{"/* default-driver iser\n */", usual, ""},
		{"/* default-driver iser\n", nil, "1:1: a comment that began with /* has no end"},
		{"/* a\n*/ default-driver iscsi\n", nil, "2:1: put what follows the end of a comment on a line of its own"},
		{"default-driver iser", nil, "1:16: default-driver: iser is not supported"},
		{"default-driver iscsi\ndefault-driver iscsi", nil, "2:16: default-driver: is given already at FILE:1:1"},
	},
	"include": {
		{"include none/*.conf", usual, ""},
		{"include none.conf", nil, "1:9: include: can't include \"DIR/none.conf\": no such file"},
		{"include", nil, "1:1: include: has no value"},
	},
	"ignore-errors": {
		{"ignore-errors yes", func(c *Config) bool { return c.IgnoreErrors }, ""},
		{"ignore-errors no", func(c *Config) bool { return !c.IgnoreErrors }, ""},
		{"ignore-errors maybe", nil, "1:15: ignore-errors: \"maybe\" is neither yes nor no"},
	},
	"control-port": {
		{"control-port 0", usual, ""},
		{"control-port 1", nil, "1:14: control-port: tgtd's control ports mean nothing here"},
	},
	"iSNSServerIP":      {{"iSNSServerIP 192.0.2.1", nil, "1:14: iSNSServerIP: iSNS is not supported"}},
	"iSNSServerPort":    {{"iSNSServerPort 3205", nil, "1:16: iSNSServerPort: iSNS is not supported"}},
	"iSNSAccessControl": {{"iSNSAccessControl On", nil, "1:19: iSNSAccessControl: iSNS is not supported"}, {"iSNSAccessControl Off", usual, ""}},
	"iSNS":              {{"iSNS On", nil, "1:6: iSNS: iSNS is not supported"}, {"iSNS Off", usual, ""}},
	"incomingdiscoveryuser": {
		{"incomingdiscoveryuser a bbbbbbbbbbbb", func(c *Config) bool { return isAccount(c.Discovery.Users[0], "a", "bbbbbbbbbbbb") }, ""},
		{"incomingdiscoveryuser a", nil, "1:23: incomingdiscoveryuser: the password is missing"},
	},
	"outgoingdiscoveryuser": {
		{"incomingdiscoveryuser a b\noutgoingdiscoveryuser c d", func(c *Config) bool { return isAccount(*c.Discovery.Outgoing, "c", "d") }, ""},
		{"outgoingdiscoveryuser a b c", nil, "1:23: outgoingdiscoveryuser: must be a user and a password"},
	},
	"backing-store": {
		{inTarget("backing-store /dev/b\nbacking-store = \"/dev/a b\""), func(c *Config) bool {
			l := c.Targets[0].LUNs
			return l[0].Path == "/dev/a b" && l[0].Number == 1 && l[1].Path == "/dev/b" && l[1].Number == 2
		}, ""},
		{"backing-store /dev/a", nil, "1:1: backing-store: can't stand here: it belongs in a <target> block"},
		{"<backing-store /dev/a>\n</backing-store>", nil, "1:1: backing-store: stands outside of a <target> block"},
		{inTarget("backing-store"), nil, "2:1: backing-store: has no value"},
		{inLUN("<direct-store x>\n</direct-store>"), nil, "3:1: direct-store: a block inside of <backing-store>"},
	},
	"direct-store": {
		{inTarget("direct-store /dev/a\nbacking-store /dev/b"), lunIs(func(l LUN) bool { return l.Path == "/dev/b" && l.Number == 1 }), ""},
	},
	"driver": {
		{inTarget("driver iscsi"), usual, ""},
		{inTarget("driver iser"), nil, "2:8: driver: iser is not supported: it needs RDMA"},
		{inTarget("driver fcoe"), nil, "2:8: driver: unknown driver \"fcoe\""},
	},
	"initiator-address": {
		{inTarget("initiator-address 192.0.2.1\ninitiator-address 198.51.100.0/24"), func(c *Config) bool {
			a := c.Targets[0].Access
			return slices.Equal(a.List(), []string{"192.0.2.1", "198.51.100.0/24"}) && a.Addresses[0] == netip.MustParsePrefix("192.0.2.1/32")
		}, ""},
		{inTarget("initiator-address ALL"), func(c *Config) bool { return c.Targets[0].Access.All }, ""},
		{inTarget("initiator-address example.com"), nil, "2:19: initiator-address: \"example.com\" is neither an IP address"},
	},
	"initiator-name": {
		{inTarget("initiator-name iqn.2001-04.com.example:h"), func(c *Config) bool {
			a := c.Targets[0].Access
			return slices.Equal(a.List(), []string{"iqn.2001-04.com.example:h"}) && !a.All
		}, ""},
		{inTarget("initiator-name host"), nil, "2:16: initiator-name: \"host\" is not an iSCSI name"},
	},
	"incominguser": {
		{inTarget("incominguser a x\\#y\nincominguser b \"z\""), func(c *Config) bool {
			u := c.Targets[0].Auth.Users
			return len(u) == 2 && isAccount(u[0], "a", "x#y") && isAccount(u[1], "b", `"z"`)
		}, ""},
		{inTarget("incominguser"), nil, "2:1: incominguser: has no value"},
	},
	"outgoinguser": {
		{inTarget("incominguser a x\noutgoinguser b y\noutgoinguser c z"), func(c *Config) bool {
			return isAccount(*c.Targets[0].Auth.Outgoing, "b", "y")
		}, ""},
	},
	"controller_tid": {
		{inTarget("controller_tid 10"), func(c *Config) bool { return c.Targets[0].TID == 10 }, ""},
		{inTarget("controller_tid 0"), nil, "2:16: controller_tid: \"0\" is not a number from 1 to 65535"},
	},
	"write-cache": {
		{inLUN("write-cache off"), lunIs(func(l LUN) bool { return !*l.WriteCache }), ""},
		{inTarget("write-cache off\n<backing-store /dev/a>\nwrite-cache on\n</backing-store>"), lunIs(func(l LUN) bool { return *l.WriteCache }), ""},
		{inLUN("write-cache maybe"), nil, "3:13: write-cache: \"maybe\" is neither on nor off"},
	},
	"scsi_id":      {{inLUN("scsi_id abc"), lunIs(func(l LUN) bool { return l.SCSIID == "abc" }), ""}},
	"scsi_sn":      {{inLUN("scsi_sn abc"), lunIs(func(l LUN) bool { return l.Serial == "abc" }), ""}},
	"vendor_id":    {{inTarget("vendor_id MyCompany Inc.\nbacking-store /dev/a"), lunIs(func(l LUN) bool { return l.Vendor == "MyCompan" }), ""}},
	"product_id":   {{inLUN("product_id abc"), lunIs(func(l LUN) bool { return l.Product == "abc" }), ""}},
	"product_rev":  {{inLUN("product_rev 2"), lunIs(func(l LUN) bool { return l.Revision == "2" }), ""}},
	"sense_format": {{inLUN("sense_format 1"), lunIs(func(l LUN) bool { return l.DescriptorSense }), ""}},
	"removable":    {{inLUN("removable 1"), lunIs(func(l LUN) bool { return l.Removable }), ""}, {inLUN("removable 2"), nil, "3:11: removable: \"2\" is neither yes nor no"}},
	"online":       {{inLUN("online 0"), lunIs(func(l LUN) bool { return l.Offline }), ""}},
	"path":         {{inLUN("path other"), lunIs(func(l LUN) bool { return strings.HasSuffix(l.Path, "/other") }), ""}},
	"mode_page": {
		{inLUN("mode_page 2:0:2:0x80:1\nmode_page 0x1c:0:1:8"), lunIs(func(l LUN) bool {
			return cmp.Equal(l.ModePages, []scsi.ModePage{{Page: 2, Data: []byte{0x80, 1}}, {Page: 0x1c, Data: []byte{8}}})
		}), ""},
		{inLUN("mode_page 2:0:3:1"), nil, "3:11: mode_page: must be page:subpage:length:byte"},
		{inLUN("mode_page 2:0:1:256"), nil, "3:11: mode_page: \"256\" is not a byte"},
	},
	"readonly": {{inLUN("readonly 1"), lunIs(func(l LUN) bool { return l.ReadOnly }), ""}},
	"device-type": {
		{inLUN("device-type disk"), usual, ""},
		{inLUN("device-type tape"), nil, "3:13: device-type: tape is not supported: gotgtd serves disks alone"},
		{inTarget("device-type drum"), nil, "2:13: device-type: unknown device type \"drum\""},
	},
	"bs-type": {
		{inLUN("bs-type rdwr"), lunIs(func(l LUN) bool { return l.Backend == "file" && !l.Direct }), ""},
		{inLUN("bs-type aio"), lunIs(func(l LUN) bool { return l.Backend == "file" && l.Direct }), ""},
		{inLUN("bs-type rbd"), nil, "3:9: bs-type: rbd is not supported in a targets.conf"},
		{inLUN("bs-type null"), nil, "3:9: bs-type: null is not supported: it loses what is written"},
		{inLUN("bs-type ssc"), nil, "3:9: bs-type: ssc is not supported"},
		{inLUN("bs-type sg"), nil, "3:9: bs-type: sg is not supported"},
		{inLUN("bs-type x"), nil, "3:9: bs-type: unknown backing store type \"x\""},
	},
	"bsopts": {
		{inLUN("bsopts \"format=raw\""), lunIs(func(l LUN) bool { return l.Format == "raw" }), ""},
		{inLUN("bsopts size=1.5G,create=1;preallocate=yes"), lunIs(func(l LUN) bool { return l.Size == 3<<29 && l.Create && l.Preallocate && !*l.Thin }), ""},
		{inLUN("bsopts conf=/a"), nil, "3:8: bsopts: conf: unknown option: there are format, size, create and preallocate"},
		{inLUN("bsopts size=big"), nil, "3:8: bsopts: size: \"big\" is not a size"},
		{inLUN("bsopts preallocate"), nil, "3:8: bsopts: preallocate: \"\" is neither yes nor no"},
	},
	"bsoflags": {
		{inLUN("bsoflags direct"), lunIs(func(l LUN) bool { return l.Direct && !l.Sync && *l.WriteCache }), ""},
		{inLUN("bsoflags sync:direct"), lunIs(func(l LUN) bool { return l.Direct && l.Sync && !*l.WriteCache }), ""},
		{inLUN("bsoflags trunc"), nil, "3:10: bsoflags: unknown flag \"trunc\""},
	},
	"allow-in-use": {{inLUN("allow-in-use yes"), lunIs(func(l LUN) bool { return l.AllowInUse }), ""}},
	"block-size": {
		{inLUN("block-size 4096"), lunIs(func(l LUN) bool { return l.BlockSize == 4096 }), ""},
		{inLUN("block-size 2048"), nil, "3:12: block-size: \"2048\" is not supported, only 512 and 4096"},
	},
	"lbppbe":            {{inLUN("lbppbe 3"), lunIs(func(l LUN) bool { return *l.PhysicalBlockExponent == 3 }), ""}, {inLUN("lbppbe 16"), nil, "3:8: lbppbe: \"16\" is not a number from 0 to 15"}},
	"la_lba":            {{inLUN("la_lba 7"), lunIs(func(l LUN) bool { return l.LowestAlignedLBA == 7 }), ""}},
	"optimal_xfer_gran": {{inLUN("optimal_xfer_gran 8"), lunIs(func(l LUN) bool { return l.OptimalTransferGranularity == 8 }), ""}},
	"optimal_xfer_len":  {{inLUN("optimal_xfer_len 16"), lunIs(func(l LUN) bool { return l.OptimalTransferLength == 16 }), ""}},
	"rotation_rate": {
		{inLUN("params rotation_rate=7200"), lunIs(func(l LUN) bool { return *l.RotationRate == 7200 }), ""},
		{inLUN("rotation_rate 1"), lunIs(func(l LUN) bool { return *l.RotationRate == 1 }), ""},
		{inLUN("params rotation_rate=65536"), nil, "3:8: params rotation_rate: \"65536\" is not a number from 0 to 65535"},
	},
	"thin_provisioning": {{inLUN("thin_provisioning 1"), lunIs(func(l LUN) bool { return *l.Thin }), ""}},
	"params": {
		{inTarget("params vendor_id=V,readonly=1\nbacking-store /dev/a"), lunIs(func(l LUN) bool { return l.Vendor == "V" && l.ReadOnly }), ""},
		{inLUN("params thin_provisioning=0,Online=No"), lunIs(func(l LUN) bool { return !*l.Thin && l.Offline }), ""},
		{inLUN("params element_type=4,address=500"), nil, "3:8: params: element_type is not supported: it is of media changers"},
		{inLUN("params bogus=1"), nil, "3:8: params: unknown parameter \"bogus\""},
		{inLUN("params readonly=x"), nil, "3:8: params readonly: \"x\" is neither yes nor no"},
	},
	"lun": {
		{inLUN("lun 15"), lunIs(func(l LUN) bool { return l.Number == 15 }), ""},
		{inTarget("lun 10\nbacking-store /dev/a"), lunIs(func(l LUN) bool { return l.Number == 10 }), ""},
		{inLUN("lun 16384"), nil, "3:5: lun: \"16384\" is not a number from 0 to 16383"},
		{inTarget("lun 1\n<backing-store /dev/a>\nlun 2\n</backing-store>"), nil, "2:5: lun: the logical unit has a lun of its own"},
	},
	"state": {
		{inTarget("state offline"), func(c *Config) bool { return c.Targets[0].Offline }, ""},
		{inTarget("state running"), nil, "2:7: state: \"running\" is neither ready nor offline"},
	},
	"MaxRecvDataSegmentLength": {
		{inTarget("MaxRecvDataSegmentLength 8192\nMaxRecvDataSegmentLength 512"), parametersAre(func(p Parameters) bool { return p.MaxRecvDataSegmentLength == 8192 }), ""},
		{inTarget("MaxRecvDataSegmentLength x"), nil, "2:26: MaxRecvDataSegmentLength: \"x\" is not a number"},
		{inTarget("maxrecvdatasegmentlength 1"), nil, "2:1: maxrecvdatasegmentlength: unknown directive in a <target> block: it is spelled MaxRecv"},
	},
	"MaxXmitDataSegmentLength": {{inTarget("MaxXmitDataSegmentLength 8192"), parametersAre(func(p Parameters) bool { return p.MaxXmitDataSegmentLength == 8192 }), ""}},
	"HeaderDigest":             {{inTarget("HeaderDigest CRC32C,None"), parametersAre(func(p Parameters) bool { return slices.Equal(p.HeaderDigest, []string{"CRC32C", "None"}) }), ""}},
	"DataDigest":               {{inTarget("DataDigest None"), parametersAre(func(p Parameters) bool { return slices.Equal(p.DataDigest, []string{"None"}) }), ""}},
	"InitialR2T":               {{inTarget("InitialR2T Yes"), parametersAre(func(p Parameters) bool { return p.InitialR2T }), ""}, {inTarget("InitialR2T 1"), nil, "2:12: InitialR2T: \"1\" is neither Yes nor No"}},
	"MaxOutstandingR2T":        {{inTarget("MaxOutstandingR2T 1"), parametersAre(func(p Parameters) bool { return p.MaxOutstandingR2T == 1 }), ""}},
	"ImmediateData":            {{inTarget("ImmediateData No"), parametersAre(func(p Parameters) bool { return !*p.ImmediateData }), ""}},
	"FirstBurstLength":         {{inTarget("FirstBurstLength 65536"), parametersAre(func(p Parameters) bool { return p.FirstBurstLength == 65536 }), ""}},
	"MaxBurstLength":           {{inTarget("MaxBurstLength 65536"), parametersAre(func(p Parameters) bool { return p.MaxBurstLength == 65536 && p.FirstBurstLength == 65536 }), ""}},
	"DataPDUInOrder":           {{inTarget("DataPDUInOrder Yes"), usual, ""}, {inTarget("DataPDUInOrder No"), nil, "2:16: DataPDUInOrder: \"No\" is not supported, only Yes"}},
	"DataSequenceInOrder":      {{inTarget("DataSequenceInOrder Yes"), usual, ""}, {inTarget("DataSequenceInOrder No"), nil, "2:21: DataSequenceInOrder: \"No\" is not supported"}},
	"ErrorRecoveryLevel":       {{inTarget("ErrorRecoveryLevel 0"), usual, ""}, {inTarget("ErrorRecoveryLevel 2"), nil, "2:20: ErrorRecoveryLevel: \"2\" is not supported, only 0"}},
	"IFMarker":                 {{inTarget("IFMarker No"), usual, ""}, {inTarget("IFMarker Yes"), nil, "2:10: IFMarker: \"Yes\" is not supported"}},
	"OFMarker":                 {{inTarget("OFMarker No"), usual, ""}, {inTarget("OFMarker Yes"), nil, "2:10: OFMarker: \"Yes\" is not supported"}},
	"IFMarkInt":                {{inTarget("IFMarkInt Reject"), usual, ""}, {inTarget("IFMarkInt 2048"), nil, "2:11: IFMarkInt: \"2048\" is not supported"}},
	"OFMarkInt":                {{inTarget("OFMarkInt Reject"), usual, ""}, {inTarget("OFMarkInt 2048"), nil, "2:11: OFMarkInt: \"2048\" is not supported"}},
	"DefaultTime2Wait":         {{inTarget("DefaultTime2Wait 0"), parametersAre(func(p Parameters) bool { return *p.DefaultTime2Wait == 0 }), ""}},
	"DefaultTime2Retain":       {{inTarget("DefaultTime2Retain 60"), parametersAre(func(p Parameters) bool { return *p.DefaultTime2Retain == 60 }), ""}},
	"MaxConnections":           {{inTarget("MaxConnections 4"), parametersAre(func(p Parameters) bool { return p.MaxConnections == 4 }), ""}},
	"MaxQueueCmd":              {{inTarget("MaxQueueCmd 64"), parametersAre(func(p Parameters) bool { return p.QueueDepth == 64 }), ""}},
	"nop_interval":             {{inTarget("nop_interval 5"), parametersAre(func(p Parameters) bool { return p.NOPInterval == 5*time.Second }), ""}, {inTarget("nop_interval 0"), parametersAre(func(p Parameters) bool { return p.NOPInterval < 0 }), ""}},
	"nop_count":                {{inTarget("nop_count 3\nnop_interval 5"), parametersAre(func(p Parameters) bool { return p.NOPTimeout == 15*time.Second }), ""}, {inTarget("nop_count 0"), nil, "2:11: nop_count: \"0\" is not a number from 1 to 255"}},
}

func TestTGTDirectives(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "targets.conf")
	known := strings.Fields(manDirectives + " " + adminDirectives + " " + adminParameters)
	for _, directive := range known {
		if len(directiveTests[directive]) == 0 {
			t.Errorf("%s: no test", directive)
		}
		for i, test := range directiveTests[directive] {
			t.Run(fmt.Sprint(directive, i), func(t *testing.T) {
				cfg, err := Parse(name, []byte(test.text))
				switch {
				case test.is == nil:
					want := strings.NewReplacer("FILE", name, "DIR", dir).Replace(test.refusal)
					checkLines(t, lines(t, err, name), []string{want})
				case err != nil:
					t.Errorf("%v", err)
				case !test.is(cfg):
					t.Errorf("not honoured: %+v", cfg)
				}
			})
		}
	}
	if len(directiveTests) != len(known) {
		t.Errorf("%d directives have tests, %d are known", len(directiveTests), len(known))
	}
}

// The configuration of the project's own scenario.
func TestTGTSharedDisk(t *testing.T) {
	cfg := mustParse(t, "/etc/tgt/targets.conf", `<target iqn.2015-02.com.stu31:t1>
    backing-store /dev/sda3
    initiator-address 172.16.31.0/24
</target>
`)
	tgt := cfg.Targets[0]
	if len(cfg.Targets) != 1 || tgt.Name != "iqn.2015-02.com.stu31:t1" || tgt.TID != 1 || len(tgt.LUNs) != 1 {
		t.Fatalf("%+v", cfg)
	}
	if l := tgt.LUNs[0]; l.Number != 1 || l.Path != "/dev/sda3" || l.SCSIID != "IET     00010001" || l.Serial != "beaf11" ||
		l.NAA != "60000000000000000e00000000010001" {
		t.Errorf("%+v", l)
	}
	if got := tgt.Access.List(); !slices.Equal(got, []string{"172.16.31.0/24"}) {
		t.Errorf("ACL %q", got)
	}
	if pos := cfg.Where("targets[0].luns[0].path"); pos != (Pos{"/etc/tgt/targets.conf", 2, 19}) {
		t.Errorf("the path is at %v", pos)
	}
}

// LUNs and TIDs are numbered by path and by name.
func TestTGTNumbers(t *testing.T) {
	cfg := mustParse(t, "/etc/tgt/targets.conf", `
<target iqn.2001-04.com.example:b>
  direct-store /img/a
  backing-store /img/d
  <backing-store /img/c>
    lun 2
  </backing-store>
  <backing-store /img/b/>
  backing-store /img/d
</target>
<target iqn.2001-04.com.example:c>
</target>
<target iqn.2001-04.com.example:a>
  controller_tid 5
</target>
<target iqn.2001-04.com.example:b>
  backing-store /img/e
</target>
`)
	var got []string
	for _, tgt := range cfg.Targets {
		got = append(got, fmt.Sprintf("%s=%d", tgt.Name[len(tgt.Name)-1:], tgt.TID))
		for _, l := range tgt.LUNs {
			got = append(got, fmt.Sprintf("%s=%d", l.Path, l.Number))
		}
	}
	want := []string{"a=5", "b=6", "/img/b=1", "/img/c=2", "/img/d=3", "/img/e=4", "/img/a=5", "c=7"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTGTSyntax(t *testing.T) {
	cfg := mustParse(t, "/etc/tgt/targets.conf", `# a comment
/* another */ default-driver iscsi # and one more
/* one
   on several lines */
<target iqn.2001-04.com.example:a>
	incominguser = user \
	   secret\#\"\$
	<backing-store "/img/with space">
		vendor_id	"a b"
	</backing-store>
</target>`)
	tgt := cfg.Targets[0]
	if !isAccount(tgt.Auth.Users[0], "user", `secret#"$`) {
		t.Errorf("account %q %q", tgt.Auth.Users[0].User, string(tgt.Auth.Users[0].Secret))
	}
	if l := tgt.LUNs[0]; l.Path != "/img/with space" || l.Vendor != "a b" {
		t.Errorf("%+v", l)
	}
}

// All that is wrong shows at once, each with its place.
func TestTGTErrors(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "targets.conf")
	write(t, filepath.Join(dir, "disk.img"), strings.Repeat("x", 512))
	if err := os.Symlink("disk.img", filepath.Join(dir, "link.img")); err != nil {
		t.Fatal(err)
	}
	write(t, name, `default-driver iser
Default-Driver iscsi
write-cache off
<target iqn.2001-04.com.example:a>
	backing-store disk.img
	bs-type \
	  tape
	frobnicate 1
	initiator-address 10.0.0.0/40 # too long
	incominguser a b
	outgoinguser c b
	<pool x>
		size 1
	</pool>
	MaxConnections 9
	here << EOF
</target>
<target not name>
	<backing-store link.img>
		incominguser a b
	</backing-store>
</target>
`)
	_, err := Load(name)
	checkLines(t, lines(t, err, name), []string{
		"1:16: default-driver: iser is not supported",
		"2:1: Default-Driver: unknown directive: it is spelled default-driver",
		"3:1: write-cache: can't stand here: it belongs in a <target>, <backing-store>",
		"7:4: bs-type: unknown backing store type \"tape\"",
		"8:2: frobnicate: unknown directive in a <target> block",
		"9:20: initiator-address: \"10.0.0.0/40\" is not a network",
		"11:15: outgoinguser: is the secret of user \"a\" as well",
		"12:2: pool: there is no such block",
		"15:17: MaxConnections: 9 is not in the range from 1 to 8",
		"16:7: here: here-documents are not supported",
		"18:9: target: \"not\\u00a0name\" has a blank or a control character in it",
		"19:17: backing-store: \"" + dir + "/link.img\" is behind the logical unit at " + name + ":5:16 already",
		"20:3: incominguser: can't stand here: it belongs in a <target> block",
	})
	if strings.Contains(err.Error(), "b b") {
		t.Error("an error shows a secret")
	}
}

func TestTGTWarnings(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "targets.conf")
	for _, s := range []string{"a.img", "b.img"} {
		write(t, filepath.Join(dir, s), strings.Repeat("x", 8192))
	}
	write(t, name, `ignore-errors yes
<target iqn.2001-04.com.example:a_b>
	backing-store b.img
	direct-store a.img
	backing-store none.img
	block-size 4096
	product_rev 12345
	incominguser a short
	InitialR2T No
	InitialR2T Yes
</target>
`)
	cfg, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, lines(t, cfg.Warnings, name), []string{
		"2:1: target: LUNs are numbered by path, backing-stores before direct-stores, as tgt does: 1 is " + dir + "/b.img, 2 is " + dir + "/none.img, 3 is",
		"2:9: target: \"iqn.2001-04.com.example:a_b\" has a \"_\" in it",
		"4:15: direct-store: \"" + dir + "/a.img\" is not a block device: it is served like a backing-store",
		"5:16: backing-store: can't find \"" + dir + "/none.img\": no such file or directory; the logical unit will not be ready",
		"6:13: block-size: tgt-admin overlooks a block-size outside",
		"7:14: product_rev: \"12345\" is cut to 4 characters",
		"8:15: incominguser: a secret of 5 bytes is weak",
		"10:13: InitialR2T: only the first one counts",
	})
}

func TestTGTIncludes(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "targets.conf")
	store := func(s string) string { return "backing-store " + s + "\n" }
	write(t, filepath.Join(dir, "targets.conf"), "include conf.d/*.conf\nInclude \"more\"\nincludeoptional none\ninclude conf.d/a.conf\n")
	write(t, filepath.Join(dir, "conf.d/a.conf"), "<target iqn.2001-04.com.example:a>\ninclude stores/a\n</target>\n")
	write(t, filepath.Join(dir, "conf.d/b.conf"), "<target iqn.2001-04.com.example:b>\n"+store("b.img")+"</target>\n")
	write(t, filepath.Join(dir, "conf.d/stores/a"), store("a.img"))
	write(t, filepath.Join(dir, "more/c"), "<target iqn.2001-04.com.example:c>\n"+store("c.img")+"</target>\n")
	write(t, filepath.Join(dir, "more/.d"), "<target iqn.2001-04.com.example:d>\n</target>\n")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := mustParse(t, name, string(data))
	var got []string
	for _, tgt := range cfg.Targets {
		got = append(got, tgt.Name[len(tgt.Name)-1:])
		for _, l := range tgt.LUNs {
			got = append(got, l.Path)
		}
	}
	want := []string{"a", dir + "/conf.d/stores/a.img", "b", dir + "/conf.d/b.img", "c", dir + "/more/c.img", "d"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(cfg.Files) != 6 || cfg.Files[0] != name {
		t.Errorf("files %q", cfg.Files)
	}
	if pos := cfg.Where("targets[0].luns[0].path"); pos != (Pos{dir + "/conf.d/stores/a", 1, 15}) {
		t.Errorf("a.img is at %v", pos)
	}
	cfg.validate(validation{})
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0].Error(), "4:9: include: \""+dir+"/conf.d/a.conf\" was included before") {
		t.Errorf("warnings %v", cfg.Warnings)
	}
}

func TestTGTIncludeErrors(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "targets.conf")
	write(t, name, "include a.conf\ninclude {a,b}.conf\ninclude [.conf\n")
	write(t, filepath.Join(dir, "a.conf"), "include sub/../b.conf\n")
	write(t, filepath.Join(dir, "sub/x"), "")
	write(t, filepath.Join(dir, "b.conf"), "include a.conf\ninclude targets.conf\n")
	_, err := Load(name)
	checkLines(t, lines(t, err, name), []string{
		"2:9: include: braces in a pattern are not supported",
		"3:9: include: \"[.conf\" is not a pattern",
		dir + "/b.conf:1:9: include: \"" + dir + "/a.conf\" includes itself",
		dir + "/b.conf:2:9: include: \"" + name + "\" includes itself",
	})
}

func TestTGTInherit(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"device/vendor":              "ATA     \n",
		"device/model":               "Some Disk 9000 with a long name\n",
		"device/rev":                 "1.0 \n",
		"device/vpd_pg80":            "\x00\x80\x00\x08 S123456",
		"queue/logical_block_size":   "512\n",
		"queue/physical_block_size":  "4096\n",
		"queue/minimum_io_size":      "4096\n",
		"queue/optimal_io_size":      "1048576\n",
		"queue/unrelated_attributes": "1\n",
	} {
		write(t, filepath.Join(dir, file), text)
	}
	l := LUN{UnitOptions: scsi.UnitOptions{Product: "mine"}}
	(&tgtLUNContext{lun: &l}).inheritFrom(dir)
	want := LUN{Options: storage.Options{BlockOptions: storage.BlockOptions{BlockSize: 512}}, UnitOptions: scsi.UnitOptions{
		Vendor: "ATA", Product: "mine", Revision: "1.0", Serial: "S123456",
		PhysicalBlockExponent: new(3), OptimalTransferGranularity: 8, OptimalTransferLength: 2048,
	},
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var empty LUN
	(&tgtLUNContext{lun: &empty}).inheritFrom(filepath.Join(dir, "none"))
	if diff := cmp.Diff(LUN{}, empty); diff != "" {
		t.Errorf("from nothing: %s", diff)
	}
}

func isAccount(a Account, user string, secret Secret) bool {
	return a.User == user && a.Secret == secret
}

// TestPeoplesSpelling is about what tgt-admin reads, or people write for it.
func TestPeoplesSpelling(t *testing.T) {
	head := "<target iqn.2001-04.com.example:a>\n"
	_, err := Parse("a.conf", []byte(head+"backing-stor /dev/a\n</target>\n"))
	if err == nil || !strings.Contains(err.Error(), `(did you mean "backing-store"?)`) {
		t.Errorf("of a directive that is nearly right: %v", err)
	}
	c := mustParse(t, "a.conf", head+"<backing-store /dev/a>\nparams vendor_id=A B readonly=1, removable=1\n</backing-store>\n</target>\n")
	if l := c.Targets[0].LUNs[0]; l.Vendor != "A B" || !l.ReadOnly || !l.Removable {
		t.Errorf("parameters with blanks between them: %+v", l)
	}
	one, two := "<backing-store /dev/b>\nlun 1\n</backing-store>\n", "<backing-store /dev/a>\nlun 2\n</backing-store>\n"
	if c = mustParse(t, "a.conf", head+one+two+"</target>\n"); len(c.notes) > 0 {
		t.Errorf("where each logical unit has a number: %v", c.notes)
	}
	if c = mustParse(t, "a.conf", head+one+"backing-store /dev/a\n</target>\n"); len(c.notes) == 0 {
		t.Error("nothing is said of the order by path")
	}
}

// Options of the backing store are checked where they stand.
func TestBSOptionsAreChecked(t *testing.T) {
	name, disk := filepath.Join(t.TempDir(), "targets.conf"), filepath.Join(t.TempDir(), "disk.img")
	write(t, disk, strings.Repeat("\x00", 4096))
	for options, want := range map[string]string{"format=qcow2": `"qcow2" is none of raw`, "preallocate=yes": "needs a size", "size=4097": "not a multiple of the block size"} {
		write(t, name, strings.ReplaceAll(inLUN("bsopts "+options), "/dev/a", disk))
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), name+":3:8: bsopts: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", options, err)
		}
	}
}
