// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/test/peer"
)

// unit is a logical unit and how it is reached.
type unit struct {
	Address string // host:port
	Target  string // iSCSI name
	LUN     uint16
}

// String returns the address that libiscsi and QEMU use.
func (u unit) String() string { return peer.URL(u.Address, u.Target, int(u.LUN)) }

// parseUnit reads what String writes.
func parseUnit(s string) (unit, error) {
	parsed, err := url.Parse(s)
	if err != nil {
		return unit{}, err
	}
	target, lun, ok := strings.Cut(strings.TrimPrefix(parsed.Path, "/"), "/")
	n, err := strconv.ParseUint(lun, 10, 14)
	if parsed.Scheme != "iscsi" || parsed.Port() == "" || target == "" || !ok || err != nil {
		return unit{}, fmt.Errorf("%q is not iscsi://HOST:PORT/TARGET/LUN", s)
	}
	return unit{parsed.Host, target, uint16(n)}, nil
}
