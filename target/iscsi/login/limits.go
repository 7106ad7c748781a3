// SPDX-License-Identifier: Apache-2.0

package login

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
)

// Limits bound what a target agrees to in a login (RFC 7143 13), and how it treats a session.
// A zero or nil is the default. The keys are those of a configuration.
type Limits struct {
	// MaxRecvDataSegmentLength is what the target declares that it takes in
	// one PDU, in bytes, 512 to 16777215; default 262144.
	MaxRecvDataSegmentLength int `yaml:"max-recv-data-segment-length,omitempty,size"`

	// MaxXmitDataSegmentLength is the most that the target sends in one PDU,
	// in bytes, however much the initiator would take; default: no bound but
	// the initiator's.
	MaxXmitDataSegmentLength int `yaml:"max-xmit-data-segment-length,omitempty,size"`

	MaxBurstLength   int `yaml:"max-burst-length,omitempty,size"`   // bytes, 512 to 16777215; default 1048576
	FirstBurstLength int `yaml:"first-burst-length,omitempty,size"` // bytes, 512 to MaxBurstLength; default 262144

	InitialR2T    bool  `yaml:"initial-r2t,omitempty"`    // no unsolicited Data-Out PDUs; default: the initiator decides
	ImmediateData *bool `yaml:"immediate-data,omitempty"` // data in the command PDU is welcome; default true

	MaxOutstandingR2T int `yaml:"max-outstanding-r2t,omitempty"` // R2Ts of one task at a time, 1 to 65535; default 8, and no more are sent
	MaxConnections    int `yaml:"max-connections,omitempty"`     // connections of one session, 1 to 8; default 8

	// HeaderDigest and DataDigest are the values that the target agrees to,
	// of "CRC32C" and "None"; the initiator chooses among them. "CRC32C"
	// alone insists on the digest. Default: both.
	HeaderDigest []string `yaml:"header-digest,omitempty"`
	DataDigest   []string `yaml:"data-digest,omitempty"`

	DefaultTime2Wait   *int `yaml:"default-time2wait,omitempty"`   // seconds, 0 to 3600; default 2
	DefaultTime2Retain *int `yaml:"default-time2retain,omitempty"` // seconds, 0 to 3600; default 20

	// QueueDepth is the most commands of one session under way at a time, the
	// widest CmdSN window, 1 to 4096; default 128.
	QueueDepth int `yaml:"queue-depth,omitempty"`

	// NOPInterval is the silence after which the target asks whether the
	// initiator still lives (NOP-In); default 15 s, negative: never.
	NOPInterval time.Duration `yaml:"nop-interval,omitempty"`

	// NOPTimeout is how long the target waits for the answer before it closes
	// the connection; default 10 s.
	NOPTimeout time.Duration `yaml:"nop-timeout,omitempty"`
}

const (
	// MaxR2T is the most R2Ts of one task that are open at a time, whatever is
	// negotiated.
	MaxR2T = 8

	maxSegment     = 1<<24 - 1 // largest value of the length keys, bytes (RFC 7143 13.12 to 13.14)
	minSegment     = 512       // the same
	maxConnections = 8         // of one session
	maxQueueDepth  = 4096
	maxTime2       = 3600 // seconds (RFC 7143 13.15, 13.16)

	defaultQueueDepth = 128
)

// digests are the values of HeaderDigest and DataDigest (RFC 7143 13.1).
var digests = []string{"CRC32C", "None"}

// SetDefaults replaces each zero value by its default.
func (l *Limits) SetDefaults() {
	l.MaxRecvDataSegmentLength = cmp.Or(l.MaxRecvDataSegmentLength, 256<<10)
	l.MaxBurstLength = cmp.Or(l.MaxBurstLength, 1<<20)
	l.FirstBurstLength = cmp.Or(l.FirstBurstLength, min(256<<10, l.MaxBurstLength))
	l.MaxOutstandingR2T = cmp.Or(l.MaxOutstandingR2T, MaxR2T)
	l.MaxConnections = cmp.Or(l.MaxConnections, maxConnections)
	l.QueueDepth = cmp.Or(l.QueueDepth, defaultQueueDepth)
	l.NOPInterval = cmp.Or(l.NOPInterval, 15*time.Second)
	l.NOPTimeout = cmp.Or(l.NOPTimeout, 10*time.Second)
	if l.ImmediateData == nil {
		l.ImmediateData = new(true)
	}
	if l.DefaultTime2Wait == nil {
		l.DefaultTime2Wait = new(2)
	}
	if l.DefaultTime2Retain == nil {
		l.DefaultTime2Retain = new(20)
	}
	if len(l.HeaderDigest) == 0 {
		l.HeaderDigest = slices.Clone(digests)
	}
	if len(l.DataDigest) == 0 {
		l.DataDigest = slices.Clone(digests)
	}
}

// WithDefaults returns l with the defaults for its zero fields, and without what goes beyond
// the target's own bounds.
func (l Limits) WithDefaults() Limits {
	l.SetDefaults()
	l.MaxConnections = min(l.MaxConnections, maxConnections)
	l.MaxOutstandingR2T = min(l.MaxOutstandingR2T, MaxR2T)
	return l
}

// discovery is what a discovery session negotiates: nothing is waited for after it, and nothing
// is kept.
func discovery() Limits {
	return Limits{DefaultTime2Wait: new(0), DefaultTime2Retain: new(0)}.WithDefaults()
}

// Check tells of each limit that is impossible, once the defaults are there.
func (l *Limits) Check(fail check.Fail) {
	for _, n := range []struct {
		key         string
		n           int
		least, most int64
	}{
		{"max-recv-data-segment-length", l.MaxRecvDataSegmentLength, minSegment, maxSegment},
		{"max-xmit-data-segment-length", cmp.Or(l.MaxXmitDataSegmentLength, minSegment), minSegment, maxSegment},
		{"max-burst-length", l.MaxBurstLength, minSegment, maxSegment},
		{"first-burst-length", l.FirstBurstLength, minSegment, maxSegment},
		{"max-outstanding-r2t", l.MaxOutstandingR2T, 1, 65535},
		{"max-connections", l.MaxConnections, 1, maxConnections},
		{"queue-depth", l.QueueDepth, 1, maxQueueDepth},
	} {
		fail.Range(n.key, int64(n.n), n.least, n.most)
	}
	if l.FirstBurstLength > l.MaxBurstLength {
		fail.Errorf("first-burst-length", "%d is more than MaxBurstLength, %d (RFC 7143 13.14)", l.FirstBurstLength, l.MaxBurstLength)
	}
	if l.DefaultTime2Wait != nil {
		fail.Range("default-time2wait", int64(*l.DefaultTime2Wait), 0, maxTime2)
	}
	if l.DefaultTime2Retain != nil {
		fail.Range("default-time2retain", int64(*l.DefaultTime2Retain), 0, maxTime2)
	}
	checkDigests(fail, "header-digest", l.HeaderDigest)
	checkDigests(fail, "data-digest", l.DataDigest)
	if l.NOPInterval >= 0 {
		fail.Time("nop-interval", l.NOPInterval)
	} else if l.NOPInterval != -1*time.Nanosecond {
		fail.Errorf("nop-interval", "must be a time or off")
	}
	fail.Time("nop-timeout", l.NOPTimeout)
}

func checkDigests(fail check.Fail, key string, list []string) {
	for i, s := range list {
		key := fmt.Sprintf("%s[%d]", key, i)
		fail.OneOf(key, s, digests)
		if slices.Contains(list[:i], s) {
			fail.Errorf(key, "%s is given twice", s)
		}
	}
}
