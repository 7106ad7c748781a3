// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// peers are the targets of the flag -peer.
type peers []running

// String implements flag.Value.
func (p *peers) String() string { return fmt.Sprint(len(*p), " peers") }

// Set implements flag.Value.
func (p *peers) Set(s string) error {
	name, address, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not a name, '=' and an iscsi:// address", s)
	}
	u, err := parseUnit(address)
	if err != nil {
		return err
	}
	*p = append(*p, running{name: name, version: "not known", unit: u, stop: func() {}})
	return nil
}

// findProcesses finds the process behind each peer, for its CPU time, and
// returns a line about each that it could not find.
func (p peers) findProcesses() (missing []string) {
	for i := range p {
		address, err := netip.ParseAddrPort(p[i].unit.Address)
		if err == nil {
			p[i].pid, err = listenerPID(address.Port())
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("CPU time of %s: %v", p[i].name, err))
		}
	}
	return missing
}
