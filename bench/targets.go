// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

const diskSize = 1 << 30

// running is a target that serves.
type running struct {
	name string
	url  string
	stop func()
}

// startAll builds and starts gotgtd, tgt and gotgt, each with a file of its
// own. What can't be had is said and left out; gotgtd must be there.
func startAll(ctx context.Context, dir string) (list []running, g *peer.Gotgtd, err error) {
	program := filepath.Join(dir, "gotgtd")
	if _, err := peer.Run(ctx, "go", "build", "-o", program, "./cmd/gotgtd"); err != nil {
		return nil, nil, err
	}
	disk, err := newDisk(dir, "gotgtd")
	if err != nil {
		return nil, nil, err
	}
	g, err = peer.StartGotgtd(ctx, program, peer.Options{Config: peer.OneDisk(disk, ""), Dir: filepath.Dir(disk)})
	if err != nil {
		return nil, nil, err
	}
	// Upgrades replace the process, so it is ended through what it says of itself.
	list = append(list, running{"gotgtd", peer.URL(g.Portals()[0], peer.IQN, 1), func() { stopGotgtd(g) }})
	for _, p := range []struct {
		name  string
		start func(ctx context.Context, dir, disk string) (running, error)
	}{{"tgt", startTgt}, {"gotgt", startGotgt}} {
		disk, err := newDisk(dir, p.name)
		if err != nil {
			return list, g, err
		}
		r, err := p.start(ctx, filepath.Dir(disk), disk)
		if err != nil {
			fmt.Printf("%s could not be run: %v\n", p.name, err)
			continue
		}
		list = append(list, r)
	}
	return list, g, nil
}

// newDisk makes a file whose blocks are all allocated and in the page cache.
func newDisk(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".d", "disk.img")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 31)
	}
	for range diskSize / len(chunk) {
		if _, err := f.Write(chunk); err != nil {
			return "", err
		}
	}
	return path, nil
}

func startTgt(ctx context.Context, dir, disk string) (running, error) {
	t, err := peer.StartTgt(ctx, peer.Options{Config: peer.OneDisk(disk, ""), Dir: dir})
	if err != nil {
		return running{}, err
	}
	return running{"tgt", peer.URL(t.Portals()[0], peer.IQN, 1), func() { _ = t.Stop() }}, nil
}

// gotgtTarget is the name that gotgt's configuration below uses.
const gotgtTarget = "iqn.2016-09.com.gotgt.gostor:bench"

// startGotgt builds gotgt v0.2.2 from its module and starts it.
func startGotgt(ctx context.Context, dir, disk string) (running, error) {
	program := filepath.Join(dir, "gotgt")
	build := fmt.Sprintf("cd %s && printf 'module bench\\n\\ngo 1.20\\n' >go.mod && GOFLAGS=-mod=mod go get github.com/gostor/gotgt@v0.2.2 && GOFLAGS=-mod=mod go build -o %s github.com/gostor/gotgt", dir, program)
	if _, err := peer.Run(ctx, "sh", "-c", build); err != nil {
		return running{}, err
	}
	portal, err := peer.FreePort()
	if err != nil {
		return running{}, err
	}
	config := fmt.Sprintf(`{"storages":[{"deviceID":1000,"path":"file:%s","online":true,"thinProvisioning":false,"blockShift":9}],
"iscsiportals":[{"id":0,"portal":%q}],
"iscsitargets":{%q:{"tpgts":{"1":[0]},"luns":{"1":1000}}}}`, disk, portal, gotgtTarget)
	if err := os.MkdirAll(filepath.Join(dir, ".gotgt"), 0o700); err != nil {
		return running{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, ".gotgt", "config.json"), []byte(config), 0o600); err != nil {
		return running{}, err
	}
	// It listens on the flag's port, whatever its configuration says.
	_, port, err := net.SplitHostPort(portal)
	if err != nil {
		return running{}, err
	}
	p, err := peer.Spawn("env", "HOME="+dir, program, "daemon", "--log", "error", "--port", port)
	if err != nil {
		return running{}, err
	}
	r := running{"gotgt", peer.URL(portal, gotgtTarget, 1), p.Kill}
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = peer.Until(wait, func() error {
		_, err := peer.Run(wait, "iscsi-inq", r.url)
		return err
	})
	if err != nil {
		p.Kill()
		return running{}, fmt.Errorf("%w\n%s", err, p.Log())
	}
	return r, nil
}
