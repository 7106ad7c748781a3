// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A key of the operational negotiation: what is offered, and what may come
// back (RFC 7143 6.2 and 13).
type key struct {
	name    string
	offer   string
	kind    keyKind
	min     uint32 // of a number
	max     uint32
	leading bool // leading connection only
	normal  bool // irrelevant in a discovery session
}

type keyKind uint8

const (
	declared keyKind = iota // no answer
	list                    // one of what was offered
	minimum                 // a number, at most what was offered
	maximum                 // a number, at least what was offered
	andBool                 // No wins
	orBool                  // Yes wins
)

// operationalKeys returns what the initiator sends in the operational stage.
func operationalKeys(o *Options, leading bool) []key {
	const maxLength = pdu.MaxDataSegment
	all := []key{
		{name: "HeaderDigest", offer: o.HeaderDigest, kind: list},
		{name: "DataDigest", offer: o.DataDigest, kind: list},
		{name: "MaxRecvDataSegmentLength", offer: number(o.MaxRecvDataSegmentLength), kind: declared},
		{name: "DefaultTime2Wait", offer: "2", kind: maximum, max: 3600, leading: true},
		{name: "DefaultTime2Retain", offer: "0", kind: minimum, max: 3600, leading: true},
		{name: "ErrorRecoveryLevel", offer: "0", kind: minimum, max: 2, leading: true},
		{name: "MaxConnections", offer: number(o.MaxConnections), kind: minimum, min: 1, max: 65535, leading: true, normal: true},
		{name: "InitialR2T", offer: yesNo(o.InitialR2T), kind: orBool, leading: true, normal: true},
		{name: "ImmediateData", offer: yesNo(o.ImmediateData), kind: andBool, leading: true, normal: true},
		{name: "MaxBurstLength", offer: number(o.MaxBurstLength), kind: minimum, min: 512, max: maxLength, leading: true, normal: true},
		{name: "FirstBurstLength", offer: number(o.FirstBurstLength), kind: minimum, min: 512, max: maxLength, leading: true, normal: true},
		{name: "MaxOutstandingR2T", offer: number(o.MaxOutstandingR2T), kind: minimum, min: 1, max: 65535, leading: true, normal: true},
		{name: "DataPDUInOrder", offer: "Yes", kind: orBool, leading: true, normal: true},
		{name: "DataSequenceInOrder", offer: "Yes", kind: orBool, leading: true, normal: true},
	}
	return slices.DeleteFunc(all, func(k key) bool {
		return k.leading && !leading || k.normal && o.Discovery ||
			slices.ContainsFunc(o.ExtraKeys, func(p pdu.Pair) bool { return p.Key == k.name })
	})
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

// checkAnswer holds the target's answer to one key against the key's result
// function.
func (k *key) checkAnswer(value string) error {
	switch k.kind {
	case list:
		if !slices.Contains(strings.Split(k.offer, ","), value) {
			return violation(nil, "%s=%s chosen, offered was %s", k.name, value, k.offer)
		}
	case andBool:
		if value != "No" && (value != "Yes" || k.offer != "Yes") {
			return violation(nil, "%s=%s is no result of AND with %s", k.name, value, k.offer)
		}
	case orBool:
		if value != "Yes" && (value != "No" || k.offer != "No") {
			return violation(nil, "%s=%s is no result of OR with %s", k.name, value, k.offer)
		}
	case minimum, maximum:
		n, err := strconv.ParseUint(value, 0, 32)
		offered, _ := strconv.ParseUint(k.offer, 10, 32) // our own number
		switch {
		case err != nil || uint32(n) < k.min || uint32(n) > k.max:
			return violation(nil, "%s=%s is not a number from %d to %d", k.name, value, k.min, k.max)
		case k.kind == minimum && n > offered, k.kind == maximum && n < offered:
			return violation(nil, "%s=%s does not follow from the offer %s", k.name, value, k.offer)
		}
	}
	return nil
}

// A negotiation collects what the target answers and declares.
type negotiation struct {
	offered  []key
	answered map[string]bool
	discover bool
	extra    []pdu.Pair
	params   *Params
}

func newNegotiation(o *Options, leading bool, p *Params) *negotiation {
	return &negotiation{offered: operationalKeys(o, leading), answered: make(map[string]bool), discover: o.Discovery, extra: o.ExtraKeys, params: p}
}

// pairs returns the offer.
func (n *negotiation) pairs() []pdu.Pair {
	var pairs []pdu.Pair
	for _, k := range n.offered {
		pairs = append(pairs, pdu.Pair{Key: k.name, Value: k.offer})
	}
	return append(pairs, n.extra...)
}

// take judges the pairs of one response and returns what has to be answered.
func (n *negotiation) take(pairs []pdu.Pair) ([]pdu.Pair, error) {
	var replies []pdu.Pair
	for _, p := range pairs {
		reply, err := n.takeOne(p)
		if err != nil {
			return nil, err
		}
		if reply != "" {
			replies = append(replies, pdu.Pair{Key: p.Key, Value: reply})
		}
	}
	return replies, nil
}

// takeEarly keeps what a target may declare in the security stage; the rest of
// that stage is not a negotiation of n.
func (n *negotiation) takeEarly(pairs []pdu.Pair) error {
	for _, p := range pairs {
		if strings.HasPrefix(p.Key, "Target") {
			if _, err := n.takeOne(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeOne returns the reply that p needs, or "".
func (n *negotiation) takeOne(p pdu.Pair) (string, error) {
	if n.answered[p.Key] {
		return "", violation(nil, "key %s sent twice", p.Key)
	}
	n.answered[p.Key] = true
	switch p.Key {
	case "TargetAlias", "TargetAddress":
		return "", nil
	case "TargetPortalGroupTag":
		tag, err := strconv.ParseUint(p.Value, 0, 16)
		if err != nil {
			return "", violation(nil, "TargetPortalGroupTag=%s is no 16-bit number", p.Value)
		}
		n.params.TargetPortalGroupTag = uint16(tag)
		return "", nil
	case "MaxRecvDataSegmentLength":
		v, err := strconv.ParseUint(p.Value, 0, 32)
		if err != nil || v < 512 || v > pdu.MaxDataSegment {
			return "", violation(nil, "MaxRecvDataSegmentLength=%s is not from 512 to %d", p.Value, pdu.MaxDataSegment)
		}
		n.params.MaxSendDataSegmentLength = uint32(v)
		return "", nil
	}
	if slices.ContainsFunc(n.extra, func(e pdu.Pair) bool { return e.Key == p.Key }) {
		n.set(p.Key, p.Value)
		return "", nil
	}
	for i := range n.offered {
		if n.offered[i].name == p.Key {
			if err := n.offered[i].checkAnswer(p.Value); err != nil {
				return "", err
			}
			n.set(p.Key, p.Value)
			return "", nil
		}
	}
	return "NotUnderstood", nil
}

// set records a result. Answers that are no number count as zero: they only
// get here for keys that a test replaced.
func (n *negotiation) set(name, value string) {
	p := n.params
	v64, _ := strconv.ParseUint(value, 0, 32)
	v, yes := uint32(v64), value == "Yes"
	switch name {
	case "HeaderDigest":
		p.HeaderDigest = value == "CRC32C"
	case "DataDigest":
		p.DataDigest = value == "CRC32C"
	case "DefaultTime2Wait":
		p.DefaultTime2Wait = v
	case "DefaultTime2Retain":
		p.DefaultTime2Retain = v
	case "ErrorRecoveryLevel":
		p.ErrorRecoveryLevel = v
	case "MaxConnections":
		p.MaxConnections = v
	case "InitialR2T":
		p.InitialR2T = yes
	case "ImmediateData":
		p.ImmediateData = yes
	case "MaxBurstLength":
		p.MaxBurstLength = v
	case "FirstBurstLength":
		p.FirstBurstLength = v
	case "MaxOutstandingR2T":
		p.MaxOutstandingR2T = v
	}
}

// finish checks that nothing is left open when the login ends.
func (n *negotiation) finish() error {
	for _, k := range n.offered {
		if k.kind != declared && !n.answered[k.name] {
			return violation(nil, "target did not answer %s=%s", k.name, k.offer)
		}
	}
	if p := n.params; p.FirstBurstLength > p.MaxBurstLength && !n.discover {
		return violation(nil, "FirstBurstLength %d is more than MaxBurstLength %d", p.FirstBurstLength, p.MaxBurstLength)
	}
	return nil
}
