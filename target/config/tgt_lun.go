// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// lunDirective is a directive of a logical unit. It may also stand at the
// target, for all of the target's logical units that have no own.
type lunDirective struct {
	key    string // canonical path of what it sets, within the logical unit
	repeat repeat
	apply  func(c *tgtLUNContext, d tgtDirective) error
}

// lunDirectives are the directives of logical units. They are filled in by
// init because params leads to all others.
var lunDirectives map[string]lunDirective

func init() {
	flag := func(key string, field func(l *LUN) *bool) lunDirective {
		return lunDirective{key, repeatError, func(c *tgtLUNContext, d tgtDirective) (err error) {
			*field(c.lun), err = parseSwitch(d.value)
			return err
		}}
	}
	text := func(key string, width int, field func(l *LUN) *string) lunDirective {
		return lunDirective{key, repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			if len(d.value) > width {
				c.b.warn(d, "%q is cut to %d characters, as tgt does", d.value, width)
				d.value = d.value[:width]
			}
			*field(c.lun) = d.value
			return nil
		}}
	}
	lunDirectives = map[string]lunDirective{
		"lun":         {"lun", repeatError, (*tgtLUNContext).number},
		"path":        {"path", repeatError, (*tgtLUNContext).setPath},
		"write-cache": {"write-cache", repeatError, (*tgtLUNContext).writeCache},
		"readonly":    flag("read-only", func(l *LUN) *bool { return &l.ReadOnly }),
		"block-size":  {"block-size", repeatError, (*tgtLUNContext).blockSize},

		"scsi_id":     text("scsi-id", 36, func(l *LUN) *string { return &l.SCSIID }),
		"scsi_sn":     text("serial", 36, func(l *LUN) *string { return &l.Serial }),
		"vendor_id":   text("vendor", 8, func(l *LUN) *string { return &l.Vendor }),
		"product_id":  text("product", 16, func(l *LUN) *string { return &l.Product }),
		"product_rev": text("revision", 4, func(l *LUN) *string { return &l.Revision }),

		"removable":    flag("removable", func(l *LUN) *bool { return &l.Removable }),
		"sense_format": flag("descriptor-sense", func(l *LUN) *bool { return &l.DescriptorSense }),
		"online": {"offline", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			online, err := parseSwitch(d.value)
			c.lun.Offline = !online
			return err
		}},
		"thin_provisioning": {"thin", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			thin, err := parseSwitch(d.value)
			c.lun.Thin = &thin
			return err
		}},
		"allow-in-use": flag("allow-in-use", func(l *LUN) *bool { return &l.AllowInUse }),

		"device-type": {"", repeatError, (*tgtLUNContext).deviceType},
		"bs-type":     {"", repeatError, (*tgtLUNContext).bsType},
		"bsoflags":    {"", repeatError, (*tgtLUNContext).bsOpenFlags},
		"bsopts":      {"", repeatError, (*tgtLUNContext).bsOptions},

		"lbppbe": {"physical-block-exponent", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			n, err := parseBounded(d.value, 15)
			c.lun.PhysicalBlockExponent = new(int(n))
			return err
		}},
		"la_lba": {"lowest-aligned-lba", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			n, err := parseBounded(d.value, scsi.MaxLowestAlignedLBA)
			c.lun.LowestAlignedLBA = uint16(n)
			return err
		}},
		"optimal_xfer_gran": {"optimal-transfer-granularity", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			n, err := parseBounded(d.value, 1<<16-1)
			c.lun.OptimalTransferGranularity = uint16(n)
			return err
		}},
		"optimal_xfer_len": {"optimal-transfer-length", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			n, err := parseBounded(d.value, 1<<32-1)
			c.lun.OptimalTransferLength = uint32(n)
			return err
		}},
		"rotation_rate": {"rotation-rate", repeatError, func(c *tgtLUNContext, d tgtDirective) error {
			n, err := parseBounded(d.value, 1<<16-1)
			c.lun.RotationRate = new(int(n))
			return err
		}},
		"mode_page": {"", repeatAll, (*tgtLUNContext).modePage},
		"params":    {"", repeatAll, (*tgtLUNContext).params},
	}
}

// tgtLUNContext is a logical unit in the making.
type tgtLUNContext struct {
	b    *tgtBuilder
	at   string
	dir  string // what relative paths are relative to
	lun  *LUN
	seen map[string]Pos // directives of the logical unit's own block
}

func (c *tgtLUNContext) path(s string) string { return absolute(c.dir, s) }

// absolute is a path that may be relative to a folder.
func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// directive honours or refuses a directive of the logical unit's own block.
func (c *tgtLUNContext) directive(d tgtDirective) {
	def, ok := lunDirectives[d.name]
	if !ok {
		c.b.unknown(d, " of a logical unit")
		return
	}
	if def.repeat == repeatAll || c.b.once(d, c.seen) {
		c.apply(def, d)
	}
}

// shared honours or refuses a directive that the target gives for all.
func (c *tgtLUNContext) shared(d tgtDirective) {
	def := lunDirectives[d.name]
	if own, ok := c.seen[d.name]; ok && def.repeat != repeatAll {
		if d.name == "lun" {
			c.b.fail(d, "", fmt.Errorf("the logical unit has a lun of its own at %s", own))
		}
		return
	}
	if d.name == "block-size" {
		c.b.warn(d, "tgt-admin overlooks a block-size outside of a <backing-store> block, and gives the logical unit 512; here it counts")
	}
	c.apply(def, d)
}

func (c *tgtLUNContext) apply(def lunDirective, d tgtDirective) {
	path := ""
	if def.key != "" {
		path = c.at + "." + def.key
		c.b.set(path, d)
	}
	if err := def.apply(c, d); err != nil {
		c.b.fail(d, path, err)
	}
}

func (c *tgtLUNContext) number(d tgtDirective) (err error) {
	c.lun.Number, err = parseLUN(d.value)
	return err
}

func (c *tgtLUNContext) setPath(d tgtDirective) error {
	c.lun.Path = c.path(d.value)
	return nil
}

func (c *tgtLUNContext) writeCache(d tgtDirective) error {
	if d.value != "on" && d.value != "off" {
		return fmt.Errorf("%q is neither on nor off", d.value)
	}
	c.lun.WriteCache = new(d.value == "on")
	return nil
}

func (c *tgtLUNContext) blockSize(d tgtDirective) error {
	if d.value != "512" && d.value != "4096" {
		return fmt.Errorf("%q is not supported, only 512 and 4096", d.value)
	}
	c.lun.BlockSize, _ = strconv.Atoi(d.value)
	return nil
}

func (c *tgtLUNContext) deviceType(d tgtDirective) error {
	switch d.value {
	case "disk":
		return nil
	case "cd", "tape", "ssc", "changer", "pt", "osd":
		return fmt.Errorf("%s is not supported: gotgtd serves disks alone", d.value)
	}
	return fmt.Errorf("unknown device type %q: gotgtd serves disks alone", d.value)
}

func (c *tgtLUNContext) bsType(d tgtDirective) error {
	switch d.value {
	case "rdwr":
		return nil
	case "aio": // tgt opens the file with O_DIRECT for it
		c.lun.Direct = true
		return nil
	case "sg", "bsg":
		return fmt.Errorf("%s is not supported: SCSI devices are not passed through", d.value)
	case "ssc":
		return errors.New("ssc is not supported: gotgtd serves disks alone")
	case "null":
		return errors.New("null is not supported: it loses what is written")
	case "rbd", "glfs", "sheepdog":
		return fmt.Errorf("%s is not supported in a targets.conf: only files and block devices are", d.value)
	}
	return fmt.Errorf("unknown backing store type %q: there are rdwr and aio", d.value)
}

func (c *tgtLUNContext) bsOpenFlags(d tgtDirective) error {
	for _, flag := range strings.FieldsFunc(d.value, func(r rune) bool { return strings.ContainsRune(":,| ", r) }) {
		switch flag {
		case "direct":
			c.lun.Direct = true
		case "sync":
			c.lun.Sync = true
		default:
			return fmt.Errorf("unknown flag %q: there are direct and sync", flag)
		}
	}
	return nil
}

// bsOptions takes options of the backing store. tgt has none for files and passes over
// what it does not know, so these are here what gotgtd has beyond tgt: the file serves both.
func (c *tgtLUNContext) bsOptions(d tgtDirective) error {
	for _, option := range strings.FieldsFunc(d.value, func(r rune) bool { return strings.ContainsRune(",; ", r) }) {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "format":
			c.lun.Format = value
		case "size":
			c.lun.Size, err = ParseSize(value)
		case "create":
			c.lun.Create, err = parseSwitch(value)
		case "preallocate":
			c.lun.Preallocate, err = parseSwitch(value)
		default:
			err = errors.New("unknown option: there are format, size, create and preallocate")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.b.set(c.at+"."+name, d)
	}
	return nil
}

// modePage takes a page, a subpage, the number of bytes and the bytes, with
// colons between them.
func (c *tgtLUNContext) modePage(d tgtDirective) error {
	var n []uint8
	for s := range strings.SplitSeq(d.value, ":") {
		b, err := strconv.ParseUint(s, 0, 8)
		if err != nil {
			return fmt.Errorf("%q is not a byte", s)
		}
		n = append(n, uint8(b))
	}
	if len(n) < 4 || int(n[2]) != len(n)-3 {
		return errors.New("must be page:subpage:length:byte:byte..., with as many bytes as length says")
	}
	c.b.set(fmt.Sprintf("%s.mode-pages[%d]", c.at, len(c.lun.ModePages)), d)
	c.lun.ModePages = append(c.lun.ModePages, scsi.ModePage{Page: n[0], Subpage: n[1], Data: n[3:]})
	return nil
}

// changerParams are parameters that tgtadm takes for media changers.
const changerParams = " element_type address start_address quantity sides clear_slot barcode volume_tag media_home tid lun dump "

// params takes tgtadm's parameters of a logical unit, name=value with commas
// or blanks between them. They are the same as the directives of those names.
func (c *tgtLUNContext) params(d tgtDirective) error {
	var errs []error
	for _, s := range splitParams(d.value) {
		name, value, _ := strings.Cut(s, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		def, ok := lunDirectives[name]
		switch isDirective := ok && !strings.Contains(name, "-") && name != "lun" && name != "params"; {
		case strings.Contains(changerParams, " "+name+" "):
			errs = append(errs, fmt.Errorf("%s is not supported: it is of media changers", name))
		case !isDirective:
			errs = append(errs, fmt.Errorf("unknown parameter %q", name))
		case value == "":
			errs = append(errs, fmt.Errorf("%s has no value", name))
		default:
			c.apply(def, tgtDirective{d.name + " " + name, value, d.pos, d.valuePos})
		}
	}
	return errors.Join(errs...)
}

// blankParam begins a parameter that follows a blank and no comma.
var blankParam = regexp.MustCompile(`[ \t]+([A-Za-z_]+=)`)

// splitParams takes parameters apart. A blank in a value is part of it, unless
// the next parameter begins there.
func splitParams(s string) []string {
	return slices.DeleteFunc(strings.Split(blankParam.ReplaceAllString(s, ",$1"), ","), func(p string) bool { return strings.TrimSpace(p) == "" && p != s })
}

func parseBounded(s string, hi uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > hi {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, hi)
	}
	return n, nil
}
