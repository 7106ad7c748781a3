// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// repeat says what more than one directive of a name in one block means.
type repeat int

const (
	repeatError repeat = iota
	repeatFirst        // the first one counts, which tgt-admin warns of
	repeatAll          // each adds to the others
)

// globalDirectives are the directives outside of all blocks. They are filled
// in by init because they refer to what refers to them.
var globalDirectives map[string]func(b *tgtBuilder, d tgtDirective) error

func init() {
	globalDirectives = map[string]func(b *tgtBuilder, d tgtDirective) error{
		"default-driver":        func(_ *tgtBuilder, d tgtDirective) error { return checkDriver(d.value) },
		"ignore-errors":         (*tgtBuilder).ignoreErrors,
		"control-port":          (*tgtBuilder).controlPort,
		"incomingdiscoveryuser": (*tgtBuilder).discoveryUser,
		"outgoingdiscoveryuser": (*tgtBuilder).discoveryUser,
		"iSNS":                  (*tgtBuilder).isns,
		"iSNSAccessControl":     (*tgtBuilder).isns,
		"iSNSServerIP":          (*tgtBuilder).isns,
		"iSNSServerPort":        (*tgtBuilder).isns,
	}
}

// checkDriver accepts the one low-level driver that there is.
func checkDriver(s string) error {
	switch s {
	case "iscsi":
		return nil
	case "iser":
		return errors.New("iser is not supported: it needs RDMA, and gotgtd serves iSCSI over TCP")
	}
	return fmt.Errorf("unknown driver %q: gotgtd serves iscsi alone", s)
}

func (b *tgtBuilder) ignoreErrors(d tgtDirective) error {
	var err error
	b.cfg.IgnoreErrors, err = parseSwitch(d.value)
	b.set("ignore-errors", d)
	return err
}

// controlPort accepts tgtd's default alone: the number names tgtd's own socket.
func (b *tgtBuilder) controlPort(d tgtDirective) error {
	if d.value != "0" {
		return errors.New("tgtd's control ports mean nothing here: give each gotgtd its own --control socket")
	}
	return nil
}

func (b *tgtBuilder) isns(d tgtDirective) error {
	if (d.name == "iSNS" || d.name == "iSNSAccessControl") && strings.EqualFold(d.value, "off") {
		return nil
	}
	return errors.New("iSNS is not supported: initiators find targets by SendTargets discovery")
}

func (b *tgtBuilder) discoveryUser(d tgtDirective) error {
	a, err := parseAccount(d.value)
	if err != nil {
		return err
	}
	path := "discovery.users[0]"
	if d.name == "outgoingdiscoveryuser" {
		path, b.cfg.Discovery.Outgoing = "discovery.outgoing", &a
	} else {
		b.cfg.Discovery.Users = []Account{a}
	}
	b.setAccount(path, d)
	return nil
}

// setAccount notes that an account comes from a directive.
func (b *tgtBuilder) setAccount(path string, d tgtDirective) {
	for _, key := range []string{"", ".user", ".secret"} {
		b.set(path+key, d)
	}
}

// parseAccount parses a name and a secret. Its errors quote neither.
func parseAccount(s string) (Account, error) {
	switch f := strings.Fields(s); len(f) {
	case 2:
		return Account{User: f[0], Secret: Secret(f[1])}, nil
	case 1:
		return Account{}, errors.New("the password is missing")
	}
	return Account{}, errors.New("must be a user and a password, without spaces in either")
}

// targetDirective is a directive of a target.
type targetDirective struct {
	key    string // canonical path of what it sets, within the target
	repeat repeat
	apply  func(c *tgtContext, d tgtDirective) error
}

// path is the whole canonical path of what the directive sets.
func (t targetDirective) path(c *tgtContext) string {
	if t.key == "" {
		return ""
	}
	return c.at + "." + t.key
}

// targetDirectives are the directives in a <target> block, but for those of
// logical units, the stores themselves among them.
var targetDirectives = map[string]targetDirective{
	"driver":            {"", repeatError, func(_ *tgtContext, d tgtDirective) error { return checkDriver(d.value) }},
	"controller_tid":    {"tid", repeatError, (*tgtContext).controllerTID},
	"state":             {"offline", repeatFirst, (*tgtContext).state},
	"initiator-address": {"", repeatAll, (*tgtContext).initiatorAddress},
	"initiator-name":    {"", repeatAll, (*tgtContext).initiatorName},
	"incominguser":      {"", repeatAll, (*tgtContext).incomingUser},
	"outgoinguser":      {"auth.outgoing", repeatFirst, (*tgtContext).outgoingUser},

	"MaxRecvDataSegmentLength": number("max-recv-data-segment-length", func(p *Parameters) *int { return &p.MaxRecvDataSegmentLength }),
	"MaxXmitDataSegmentLength": number("max-xmit-data-segment-length", func(p *Parameters) *int { return &p.MaxXmitDataSegmentLength }),
	"MaxBurstLength":           number("max-burst-length", func(p *Parameters) *int { return &p.MaxBurstLength }),
	"FirstBurstLength":         number("first-burst-length", func(p *Parameters) *int { return &p.FirstBurstLength }),
	"MaxOutstandingR2T":        number("max-outstanding-r2t", func(p *Parameters) *int { return &p.MaxOutstandingR2T }),
	"MaxConnections":           number("max-connections", func(p *Parameters) *int { return &p.MaxConnections }),
	"MaxQueueCmd":              number("queue-depth", func(p *Parameters) *int { return &p.QueueDepth }),
	"DefaultTime2Wait":         seconds("default-time2wait", func(p *Parameters) **int { return &p.DefaultTime2Wait }),
	"DefaultTime2Retain":       seconds("default-time2retain", func(p *Parameters) **int { return &p.DefaultTime2Retain }),
	"InitialR2T": parameter("initial-r2t", func(p *Parameters, s string) (err error) {
		p.InitialR2T, err = parseYesNo(s)
		return err
	}),
	"ImmediateData": parameter("immediate-data", func(p *Parameters, s string) error {
		yes, err := parseYesNo(s)
		p.ImmediateData = &yes
		return err
	}),
	"HeaderDigest": parameter("header-digest", func(p *Parameters, s string) error {
		p.HeaderDigest = strings.Split(s, ",")
		return nil
	}),
	"DataDigest": parameter("data-digest", func(p *Parameters, s string) error {
		p.DataDigest = strings.Split(s, ",")
		return nil
	}),
	"nop_interval": parameter("nop-interval", setNOPInterval),
	"nop_count":    {"", repeatFirst, (*tgtContext).nopCount},

	"DataPDUInOrder":      only("Yes", "data always goes in order"),
	"DataSequenceInOrder": only("Yes", "data always goes in order"),
	"ErrorRecoveryLevel":  only("0", "a failed session is begun anew"),
	"IFMarker":            only("No", "RFC 7143 has done away with markers"),
	"OFMarker":            only("No", "RFC 7143 has done away with markers"),
	"IFMarkInt":           only("Reject", "RFC 7143 has done away with markers"),
	"OFMarkInt":           only("Reject", "RFC 7143 has done away with markers"),
}

// parameter makes the directive that sets a negotiation parameter.
func parameter(key string, set func(p *Parameters, s string) error) targetDirective {
	key = "parameters." + key
	return targetDirective{key, repeatFirst, func(c *tgtContext, d tgtDirective) error {
		c.b.set(c.at+"."+key, d)
		return set(&c.target.Parameters, d.value)
	}}
}

func number(key string, field func(p *Parameters) *int) targetDirective {
	return parameter(key, func(p *Parameters, s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number that is possible here", s)
		}
		*field(p) = int(n)
		return nil
	})
}

func seconds(key string, field func(p *Parameters) **int) targetDirective {
	return parameter(key, func(p *Parameters, s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is not a number of seconds", s)
		}
		*field(p) = new(int(n))
		return nil
	})
}

// only makes the directive that can say nothing but what is so anyway.
func only(value, reason string) targetDirective {
	return targetDirective{"", repeatFirst, func(_ *tgtContext, d tgtDirective) error {
		if !strings.EqualFold(d.value, value) {
			return fmt.Errorf("%q is not supported, only %s: %s", d.value, value, reason)
		}
		return nil
	}}
}

// setNOPInterval takes seconds; 0 means never.
func setNOPInterval(p *Parameters, s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a number of seconds", s)
	}
	p.NOPInterval = time.Duration(n) * time.Second
	if n == 0 {
		p.NOPInterval = -1
	}
	return nil
}

// setNOPTimeout makes one question wait as long as count of tgt's would.
func setNOPTimeout(p *Parameters, count int) {
	interval := p.NOPInterval
	if interval <= 0 {
		var usual Parameters
		usual.SetDefaults()
		interval = usual.NOPInterval
	}
	p.NOPTimeout = time.Duration(count) * interval
}

// nopCount takes how many questions in a row may stay without an answer. Here
// one question waits that much longer.
func (c *tgtContext) nopCount(d tgtDirective) error {
	n, err := strconv.ParseUint(d.value, 10, 8)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a number from 1 to 255", d.value)
	}
	c.nops = int(n)
	c.b.set(c.at+".parameters.nop-timeout", d)
	return nil
}

func (c *tgtContext) controllerTID(d tgtDirective) error {
	n, err := strconv.ParseUint(d.value, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a number from 1 to 65535", d.value)
	}
	c.target.TID = int(n)
	c.b.set(c.at+".tid", d)
	return nil
}

func (c *tgtContext) state(d tgtDirective) error {
	switch d.value {
	case "ready", "offline":
		c.target.Offline = d.value == "offline"
		return nil
	}
	return fmt.Errorf("%q is neither ready nor offline", d.value)
}

func (c *tgtContext) initiatorAddress(d tgtDirective) error {
	c.b.set(fmt.Sprintf("%s.access.addresses[%d]", c.at, len(c.target.Access.Addresses)), d)
	return c.target.Access.add(d.value)
}

func (c *tgtContext) initiatorName(d tgtDirective) error {
	c.b.set(fmt.Sprintf("%s.access.initiators[%d]", c.at, len(c.target.Access.Initiators)), d)
	return c.target.Access.addInitiator(d.value)
}

func (c *tgtContext) incomingUser(d tgtDirective) error {
	a, err := parseAccount(d.value)
	if err != nil {
		return err
	}
	c.b.setAccount(fmt.Sprintf("%s.auth.users[%d]", c.at, len(c.target.Auth.Users)), d)
	c.target.Auth.Users = append(c.target.Auth.Users, a)
	return nil
}

func (c *tgtContext) outgoingUser(d tgtDirective) error {
	a, err := parseAccount(d.value)
	if err != nil {
		return err
	}
	c.b.setAccount(c.at+".auth.outgoing", d)
	c.target.Auth.Outgoing = &a
	return nil
}

// parseYesNo parses a truth value as iSCSI spells it.
func parseYesNo(s string) (bool, error) {
	if yes := strings.EqualFold(s, "Yes"); yes || strings.EqualFold(s, "No") {
		return yes, nil
	}
	return false, fmt.Errorf("%q is neither Yes nor No", s)
}

// parseSwitch parses a truth value as tgt's tools spell it, and as people do.
func parseSwitch(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "on", "true":
		return true, nil
	case "0", "no", "off", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", s)
}
