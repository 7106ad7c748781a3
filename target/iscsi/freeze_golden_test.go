// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"compress/flate"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

var update = flag.Bool("update", false, "write the golden snapshots of the present format if they are missing")

// goldenFile holds snapshots of one session in the middle of its life, each
// with what is needed to live it to its end.
type goldenFile struct {
	Script []byte       `cbor:"1,keyasint"` // all that the client sends
	Want   []byte       `cbor:"2,keyasint"` // all that it is answered, masked
	Disk   []byte       `cbor:"3,keyasint"` // at the end, without the zeros behind
	Cases  []goldenCase `cbor:"4,keyasint"`
}

type goldenCase struct {
	Place  string          `cbor:"1,keyasint"`
	Cut    int             `cbor:"2,keyasint"` // bytes that the client has sent
	Before []byte          `cbor:"3,keyasint"` // what it was answered
	Disk   []byte          `cbor:"4,keyasint"`
	Node   cbor.RawMessage `cbor:"5,keyasint"` // NodeState
	Device cbor.RawMessage `cbor:"6,keyasint"` // scsi.DeviceState
}

// goldenScript is the script that has every place: CHAP in both directions, and
// digests.
func goldenScript() *script {
	all := scripts()
	return all[len(all)-1]
}

func trimZeros(disk []byte) []byte { return bytes.Clone(bytes.TrimRight(disk, "\x00")) }

// record freezes a run of the script in the middle of a place, takes the
// snapshot, and lets the run go on.
func (f *freezing) record(p *place) (c goldenCase) {
	where := f.positions(p)
	v := where[len(where)/2]
	tr, g, r := f.stage(p, (v.first+v.last)/2)
	defer r.close()
	sent := 0
	stream := r.play(f.t, f.script, f.sent, &tr, func() {
		tr.awaitGate(g)
		state, _ := r.freeze(f.t)
		sent = g.sent()
		if !f.hit(p, state, tr.cut, sent) {
			f.t.Fatalf("%s: not reached", p.name)
		}
		var err [2]error
		c.Node, err[0] = cbor.Marshal(state)
		c.Device, err[1] = cbor.Marshal(r.target.Device.Snapshot())
		if err := errors.Join(err[:]...); err != nil {
			f.t.Fatal(err)
		}
		c.Disk = trimZeros(r.contents(f.t, f.scratch))
		g.set(-1)
		r.node.Thaw()
	})
	c.Place, c.Cut, c.Before = p.name, tr.cut, stream[:sent]
	return c
}

// recordGolden writes a golden file with a snapshot of every place.
func recordGolden(t *testing.T, path string) {
	f := newFreezing(t, goldenScript(), make(map[string]int))
	g := goldenFile{Script: f.script.bytes, Want: f.want, Disk: trimZeros(f.disk)}
	all := places()
	for _, p := range f.has(all) {
		g.Cases = append(g.Cases, f.record(p))
	}
	if len(g.Cases) != len(all) {
		t.Fatalf("%d of %d places", len(g.Cases), len(all))
	}
	b, err := cbor.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close(), os.WriteFile(path, packed.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, path string) (g goldenFile) {
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err == nil {
		err = cbor.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return g
}

// connect returns both ends of a TCP connection, the target's as a file.
func connect(t *testing.T) (net.Conn, *os.File) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	f, err := server.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	return client, f
}

// live restores a snapshot and lives the session to its end.
func (g *goldenFile) live(t *testing.T, c *goldenCase) {
	var state NodeState
	var device scsi.DeviceState
	if err := errors.Join(cbor.Unmarshal(c.Node, &state), cbor.Unmarshal(c.Device, &device)); err != nil {
		t.Fatal(err)
	}
	for i := range state.Connections {
		state.Connections[i].Born = time.Now().UnixNano() // else a login is years over its time
	}
	store := storagetest.NewRAM(testDiskSize)
	if _, err := store.WriteAt(t.Context(), c.Disk, 0); err != nil && len(c.Disk) > 0 {
		t.Fatal(err)
	}
	target := diskOver(t, store, Limits{}, goldenScript().auth)
	// The process that wrote it had TAS=0, and said nothing of its mode pages. A unit attention
	// for that is no part of the script.
	device.Units[0].ModePages = target.Device.Snapshot().Units[0].ModePages
	if err := target.Device.Restore(device); err != nil {
		t.Fatal(err)
	}
	client, socket := connect(t)
	node := NewNode(Options{Log: slog.New(slog.DiscardHandler)})
	defer node.Close()
	node.sys.random = still{}
	node.SetTargets([]*Target{target}, announced, Auth{})
	if err := node.Restore(&state, []*os.File{socket}, func(string) *Target { return target }); err != nil {
		t.Fatal(err)
	}
	node.Start()
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	failed := make(chan error, 1)
	go func() { _, err := client.Write(g.Script[c.Cut:]); failed <- err }()
	after, err := io.ReadAll(client)
	if err = errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	stream := append(bytes.Clone(c.Before), after...)
	mask(t, stream, dissect(t, stream, true))
	if !bytes.Equal(stream, g.Want) {
		t.Errorf("the client sees %d bytes, want %d; the first difference is at %d", len(stream), len(g.Want), firstDifference(stream, g.Want))
	}
	disk := make([]byte, testDiskSize)
	if _, err := store.ReadAt(t.Context(), disk, 0); err != nil || !bytes.Equal(trimZeros(disk), g.Disk) {
		t.Errorf("the disk holds something else (%v)", err)
	}
}

// TestGolden goes on with sessions that were frozen by the versions of long
// ago, in every place: their snapshots must be readable for ever.
func TestGolden(t *testing.T) {
	const present = "testdata/node1.golden"
	if _, err := os.Stat(present); errors.Is(err, os.ErrNotExist) && *update {
		recordGolden(t, present)
	}
	paths, err := filepath.Glob("testdata/node*.golden")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden snapshots: %v", err)
	}
	for _, path := range paths {
		g := readGolden(t, path)
		if len(g.Cases) < 25 {
			t.Errorf("%s has %d cases only", path, len(g.Cases))
		}
		for i := range g.Cases {
			c := &g.Cases[i]
			t.Run(filepath.Base(path)+"/"+c.Place, func(t *testing.T) { g.live(t, c) })
		}
	}
}
