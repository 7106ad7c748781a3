// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"

	own "github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
)

// unknownGroup is the portal group of connections to addresses that are no
// portal: they may ask which targets there are, but log in to none.
const unknownGroup = 0xffff

// parsePortals returns the portals of a target, by address, with the tags of
// their portal groups.
func parsePortals(name string, c *config.Config) (map[netip.AddrPort]uint16, error) {
	if c == nil {
		return nil, errors.New("there is no configuration")
	}
	portals := make(map[netip.AddrPort]uint16)
	tpgts := c.ISCSITargets[name].TPGTs
	for _, key := range slices.Sorted(maps.Keys(tpgts)) {
		tag, err := strconv.ParseUint(key, 10, 16)
		if err != nil || tag == unknownGroup {
			return nil, fmt.Errorf("portal group tag %q is not a number from 0 to 65534", key)
		}
		for _, i := range tpgts[key] {
			if i >= uint64(len(c.ISCSIPortals)) {
				return nil, fmt.Errorf("portal group %d has portal %d, counted from 0, and there are %d", tag, i, len(c.ISCSIPortals))
			}
			portal, err := parsePortal(c.ISCSIPortals[i].Portal)
			if err != nil {
				return nil, err
			}
			if first, twice := portals[portal]; twice && first != uint16(tag) {
				return nil, fmt.Errorf("portal %v is in portal groups %d and %d", portal, first, tag)
			}
			portals[portal] = uint16(tag)
		}
	}
	if len(portals) == 0 {
		return nil, errors.New("it has no portal in the configuration: nobody could log in")
	}
	return portals, nil
}

// parsePortal reads a portal as gotgt has it, ADDRESS:PORT. Without an address
// it is every address.
func parsePortal(s string) (netip.AddrPort, error) {
	if len(s) > 0 && s[0] == ':' {
		s = "[::]" + s
	}
	s, err := own.ParsePortal(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(s)
}

// tags returns the tags of the target's portal groups, in order.
func (t *driverTarget) tags() []uint16 {
	return slices.Compact(slices.Sorted(maps.Values(t.portals)))
}

// checkGroups refuses a target that puts a portal into another portal group
// than those before: which group a connection belongs to is known before the
// initiator names a target. The caller holds mu.
func (d *Driver) checkGroups(t *driverTarget) error {
	known := d.portalsLocked()
	for portal, tag := range t.portals {
		if other, ok := known[portal]; ok && other != tag {
			return fmt.Errorf("portal %v is in portal group %d here and in %d in another target", portal, tag, other)
		}
	}
	return nil
}

// publishLocked makes the portals of all targets count, and tells discovery of
// them.
func (d *Driver) publishLocked() {
	portals := d.portalsLocked()
	d.group.Store(&portals)
	if s := d.server.Load(); s != nil {
		s.Announce(d.announcedLocked(portals))
	}
}

// announcedLocked returns what initiators are told: the portals, or the
// cluster's address in their place.
func (d *Driver) announcedLocked(portals map[netip.AddrPort]uint16) []iscsi.PortalGroup {
	groups := make(map[uint16][]netip.AddrPort)
	for portal, tag := range portals {
		groups[tag] = append(groups[tag], portal)
	}
	cluster, err := netip.ParseAddr(d.cluster)
	list := []iscsi.PortalGroup{}
	for _, tag := range slices.Sorted(maps.Keys(groups)) {
		g := iscsi.PortalGroup{Tag: tag, Portals: groups[tag]}
		slices.SortFunc(g.Portals, netip.AddrPort.Compare)
		if err == nil {
			g.Portals = []netip.AddrPort{netip.AddrPortFrom(cluster, d.port)}
		}
		list = append(list, g)
	}
	return list
}

// SetClusterIP makes discovery tell this address, with Run's port, in place of
// the portals, for initiators that reach them through a translation of
// addresses. Empty takes that back. What is not an IP address is logged and
// has no effect.
func (d *Driver) SetClusterIP(ip string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := netip.ParseAddr(ip); err != nil && ip != "" {
		d.log.Error("cluster address not used", "error", err)
		return
	}
	d.cluster = ip
	d.publishLocked()
}

// admit finds the portal group that a connection has come to, and refuses
// those of a second host if that is wanted.
func (d *Driver) admit(local, remote netip.AddrPort) (uint16, error) {
	if d.blocks.Load() {
		for _, other := range d.server.Load().Initiators() {
			if other.Addr() != remote.Addr() {
				return 0, fmt.Errorf("host %v is connected already, and %v is not let in beside it", other.Addr(), remote.Addr())
			}
		}
	}
	portals := *d.group.Load()
	for _, portal := range []netip.AddrPort{
		local, netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port()), netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port()),
	} {
		if tag, ok := portals[portal]; ok {
			return tag, nil
		}
	}
	return unknownGroup, nil
}

// announceToService enters a target into gotgt's own tables, where programs
// look for its ports and logical units.
func (d *Driver) announceToService(t *driverTarget) error {
	st, err := d.service.NewSCSITarget(t.tid-1, driverName, t.name)
	if err != nil {
		return err
	}
	group := st.TargetPortGroups[0]
	for _, tag := range t.tags() {
		group.TargetPortGroup = append(group.TargetPortGroup,
			&api.SCSITargetPort{RelativeTargetPortID: tag, TargetPortName: fmt.Sprintf("%s,t,0x%02x", t.name, tag)})
	}
	return nil
}
