// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"strings"
)

// The targets. mail and db are there from the beginning; archive is added, and its name sorts
// before theirs.
const (
	mailTarget    = "iqn.2015-02.com.stu31:mail"
	dbTarget      = "iqn.2015-02.com.stu31:db"
	archiveTarget = "iqn.2015-02.com.stu31:archive"
)

// What mail asks initiators for.
const (
	chapUser   = "mailhost"
	chapSecret = "a-secret-of-mail"
)

// Where the files are on the server.
const (
	tgtConf     = "/etc/tgt/targets.conf"
	archiveConf = "conf.d/archive.conf" // what is added, in /etc/tgt and in /etc/gotgtd
	gotgtdConf  = "/etc/gotgtd/targets.conf"
	dropInFile  = "/etc/systemd/system/gotgtd.service.d/override.conf" // where systemctl edit writes it
	ledgerFile  = "/var/lib/gotgtd/numbers.yaml"
)

// disks are the logical units' files in /srv/disks, each with a file system whose label is its name. The last
// two are added: cold goes to mail, where its path sorts before the others.
var disks = []string{"mail-root", "mail-data", "db", "db-log", "mail-cold", "archive"}

// configuration is a targets.conf. It leaves all numbers to order, which is another
// one than that of its lines, unless it has those that everything was given first.
type configuration struct {
	dir      string // of its include
	cold     bool   // mail has the disk that is added
	numbered bool
}

func (c configuration) String() string {
	number := func(directive string, n int) string {
		if !c.numbered {
			return ""
		}
		return fmt.Sprintf("        %s %d\n", directive, n)
	}
	disk := func(name string, lun int, more ...string) string {
		return fmt.Sprintf("    <backing-store /srv/disks/%s.img>\n%s%s    </backing-store>\n", name, number("lun", lun), strings.Join(more, ""))
	}
	cold := ""
	if c.cold {
		cold = disk("mail-cold", 3)
	}
	return fmt.Sprintf("include %s/conf.d/*.conf\n\n", c.dir) +
		fmt.Sprintf("<target %s>\n%s%s%s%s    incominguser %s %s\n</target>\n\n", mailTarget, number("controller_tid", 2),
			disk("mail-root", 2), disk("mail-data", 1), cold, chapUser, chapSecret) +
		fmt.Sprintf("<target %s>\n%s%s%s</target>\n", dbTarget, number("controller_tid", 1),
			disk("db", 2, "        scsi_id db-vol-0003\n", "        scsi_sn db0003\n"), disk("db-log", 1))
}

// archive is the file of the target that is added.
func archive(numbered bool) string {
	tid := ""
	if numbered {
		tid = "    controller_tid 3\n"
	}
	return fmt.Sprintf("<target %s>\n%s    backing-store /srv/disks/archive.img\n</target>\n", archiveTarget, tid)
}

// What docs/migrating.md has an administrator do on the server, line by line.
const (
	runningNumbers = "tgtadm --mode target --op show"
	fileNumbers    = "gotgtd check --config /etc/tgt/targets.conf --print-yaml"
	checkFile      = "gotgtd check --config /etc/tgt/targets.conf"
	copyFile       = `cp -a /etc/tgt/targets.conf /etc/tgt/conf.d /etc/gotgtd/
sed -i 's|/etc/tgt/|/etc/gotgtd/|' /etc/gotgtd/targets.conf
chown -R gotgtd /etc/gotgtd/targets.conf /etc/gotgtd/conf.d
chmod -R go= /etc/gotgtd/targets.conf /etc/gotgtd/conf.d
chown gotgtd /srv/disks/*.img`
	dropIn = `[Service]
ExecStart=
ExecStart=/usr/bin/upgraded run --control /run/gotgtd/upgraded.sock --watchdog 30s -- /usr/bin/gotgtd serve --config /etc/gotgtd/targets.conf --control /run/gotgtd/gotgtd.sock
ReadWritePaths=/srv/disks
`
	checkAsService = "runuser -u gotgtd -- gotgtd check --config /etc/gotgtd/targets.conf"
	changeOver     = `systemctl disable --now tgt
systemctl enable --now gotgtd.socket gotgtd.service`
	goBack = `systemctl disable --now gotgtd.socket gotgtd.service
systemctl enable --now tgt`
)

// multipathConfig makes a map of every disk, named by its WWID, which outlives the
// time without a target.
const multipathConfig = `defaults {
	user_friendly_names no
	find_multipaths no
	path_checker tur
	polling_interval 1
	max_polling_interval 2
	no_path_retry queue
}
blacklist {
	devnode "^vd"
}
`
