// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strconv"

	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // gotgt's LUN 0 needs its null store

	iscsit "github.com/gotgtd/gotgtd/target/gotgt"
)

// A frontend serves a volume by iSCSI, through gotgt's interfaces.
type frontend struct {
	volume *volume
	driver scsi.SCSITargetDriver
}

// startup serves the volume as LUN 0 of a target with its name. What it
// returns tells why the target has ended.
func (f *frontend) startup(name string, portals []string) (ended <-chan error, err error) {
	iscsit.EnableStats = true
	target := "iqn.2026-11.example:" + name
	c, port, err := targetConfig(target, portals)
	if err != nil {
		return nil, err
	}
	// Initiators know the device by its number: it comes from the name alone,
	// so that it is the same in the next process.
	id := fnv.New64a()
	id.Write([]byte(name))
	err = scsi.InitSCSILUMapEx(&config.BackendStorage{
		DeviceID: id.Sum64() >> 4, Path: pluginName + ":" + target, Online: true, ThinProvisioning: true, BlockShift: 9,
	}, target, 0, f.volume)
	if err != nil {
		return nil, err
	}
	if f.driver, err = scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService()); err != nil {
		return nil, err
	}
	if err := f.driver.NewTarget(target, c); err != nil {
		return nil, err
	}
	end := make(chan error, 1)
	go func() { end <- f.driver.Run(port) }()
	return end, nil
}

// targetConfig is gotgt's configuration of the target.
func targetConfig(target string, portals []string) (c *config.Config, port int, err error) {
	c = &config.Config{ISCSITargets: map[string]config.ISCSITarget{}}
	groups := map[string][]uint64{}
	for i, portal := range portals {
		_, p, err := net.SplitHostPort(portal)
		if err == nil {
			port, err = strconv.Atoi(p)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%q is no portal: %w", portal, err)
		}
		c.ISCSIPortals = append(c.ISCSIPortals, config.ISCSIPortalInfo{ID: uint16(i), Portal: portal})
		groups[strconv.Itoa(i+1)] = []uint64{uint64(i)}
	}
	c.ISCSITargets[target] = config.ISCSITarget{TPGTs: groups}
	return c, port, nil
}

// stats tells what initiators did.
func (f *frontend) stats() scsi.Stats { return f.driver.Stats() }

// resize gives the volume another size: before initiators hear of more, after
// they have heard of less.
func (f *frontend) resize(size int64) error {
	if size > f.volume.size() {
		return errors.Join(f.volume.resize(size), f.driver.Resize(uint64(size)))
	}
	return errors.Join(f.driver.Resize(uint64(size)), f.volume.resize(size))
}

// shutdown ends the target.
func (f *frontend) shutdown() error { return f.driver.Close() }
