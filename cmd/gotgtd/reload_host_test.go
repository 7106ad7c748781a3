// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// blockBytes is a block of any block size that images are served with.
const blockBytes = 4096

// place is where the i-th host writes in each disk, in bytes.
func place(i int) int64 { return int64(i+1) * blockBytes }

// Codes of sense data that hosts are told of a reload with (SPC-4 annex D).
const (
	codeNotReady     = 0x0403 // NOT READY, MANUAL INTERVENTION REQUIRED
	codeReady        = 0x2800 // NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED
	codeNoUnit       = 0x2500 // LOGICAL UNIT NOT SUPPORTED
	codeCapacity     = 0x2a09 // CAPACITY DATA HAS CHANGED
	codeInquiryData  = 0x3f03 // INQUIRY DATA HAS CHANGED
	codeReportedLUNs = 0x3f0e // REPORTED LUNS DATA HAS CHANGED
)

// A host is an initiator with a session.
type host struct {
	index   int
	name    string
	target  string
	session *initiator.Session
	asked   atomic.Bool // to log out
	late    bool        // it logged in after the plan of the reload was made

	disks map[uint16]*disk // what it has met

	stop    chan struct{} // ends the writers
	writers sync.WaitGroup
}

// A disk is a logical unit as a host knows it.
type disk struct {
	view
	used  bool // read or written since the clock was last moved
	other bool // it was met anew at the last reload, as another disk

	mu    sync.Mutex // protects codes
	codes []uint16   // sense codes that commands ended with since the last reload
}

// noImage is the stamp of a disk that is not ready.
const noImage = "no image"

// A view is what a host has learnt of a logical unit.
type view struct {
	identity string // standard INQUIRY data, VPD pages 80h and 83h
	stamp    string // which file it is
	keys     string // PERSISTENT RESERVE IN, READ KEYS
	capacity initiator.Capacity
}

// disk is what a host has just learnt, which has read from it then.
func (v view) disk() *disk { return &disk{view: v, used: v.stamp != noImage} }

// login opens a session of the index-th host.
func login(ctx context.Context, index int, target, address string) (*host, error) {
	h := &host{index: index, name: modelHosts[index], target: target, disks: make(map[uint16]*disk)}
	var err error
	h.session, err = initiator.Dial(ctx, initiator.Options{
		Address: address, TargetName: target, InitiatorName: h.name, ISID: pdu.ISID{0x80, byte(index)},
		OnAsync: func(m pdu.AsyncMessage, _ []byte) {
			if m.Event == pdu.AsyncLogoutRequest {
				h.asked.Store(true)
			}
		},
	})
	return h, err
}

func (h *host) String() string { return fmt.Sprintf("%s at %s", h.name, h.target) }

func (h *host) close() {
	h.rest()
	h.session.Close()
}

// senseOf is the sense code that a command has ended with, 0 for GOOD. Another
// error than a status is the end of the session.
func senseOf(err error) (code uint16, lost error) {
	var status *initiator.StatusError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &status):
		return 0, err
	case status.Status != initiator.StatusCheckCondition:
		return 0xff00 | uint16(status.Status), nil
	}
	_, code = initiator.DecodeSense(status.Sense)
	return code, nil
}

// learn asks for everything that is in a view. Unit attentions were taken.
func (h *host) learn(ctx context.Context, lun uint16) (v view, err error) {
	wire := initiator.LUN(lun)
	for _, page := range []int{-1, 0x80, 0x83} {
		b, err := h.session.Inquiry(ctx, wire, page >= 0, byte(max(page, 0)), 255)
		if err != nil {
			return v, err
		}
		v.identity += hex.EncodeToString(b) + " "
	}
	if v.capacity, err = h.session.ReadCapacity(ctx, wire); err != nil {
		if code, _ := senseOf(err); code == codeNotReady {
			v.stamp, err = noImage, nil
		}
		return v, err
	}
	block := make([]byte, v.capacity.BlockSize)
	var cmd initiator.Command
	if err := h.session.Do(ctx, cmd.Read10(wire, 0, 1, block, 0)); err != nil {
		return v, err
	}
	v.stamp = text(block)
	keys := make([]byte, 256)
	if err := h.session.Do(ctx, cmd.ReserveIn(wire, 0, keys)); err != nil {
		return v, err
	}
	v.keys = hex.EncodeToString(keys[4:cmd.Received])
	return v, nil
}

// meet learns what there is of all logical units.
func (h *host) meet(ctx context.Context) error {
	list, err := h.visible(ctx)
	if err != nil {
		return err
	}
	for _, lun := range list {
		err := h.session.Settle(ctx, initiator.LUN(lun))
		if code, _ := senseOf(err); err != nil && code != codeNotReady {
			return fmt.Errorf("LUN %d: %w", lun, err)
		}
		v, err := h.learn(ctx, lun)
		if err != nil {
			return fmt.Errorf("LUN %d: %w", lun, err)
		}
		h.disks[lun] = v.disk()
	}
	return nil
}

// visible lists the logical units but for the controller.
func (h *host) visible(ctx context.Context) ([]uint16, error) {
	list, err := h.session.ReportLUNs(ctx)
	var luns []uint16
	for _, wire := range list {
		if wire != 0 {
			luns = append(luns, uint16(wire>>48))
		}
	}
	return luns, err
}

// write writes the host's own block, with the name of the disk that it takes the
// logical unit for. While that is not ready it only asks whether it is.
func (h *host) write(ctx context.Context, lun uint16) error {
	d := h.disks[lun]
	if d.stamp == noImage {
		return h.session.TestUnitReady(ctx, initiator.LUN(lun))
	}
	block := make([]byte, d.capacity.BlockSize)
	copy(block, d.stamp+" by "+h.name)
	var cmd initiator.Command
	return h.session.Do(ctx, cmd.Write10(initiator.LUN(lun), uint32(place(h.index)/int64(len(block))), 1, block, 0))
}

// read reads a block.
func (h *host) read(ctx context.Context, lun uint16) error {
	if h.disks[lun].stamp == noImage {
		return h.session.TestUnitReady(ctx, initiator.LUN(lun))
	}
	var cmd initiator.Command
	return h.session.Do(ctx, cmd.Read10(initiator.LUN(lun), 0, 1, make([]byte, h.disks[lun].capacity.BlockSize), 0))
}

// written reads the host's own block from the file with that stamp.
func (w *world) written(h *host, stamp string) string {
	b := make([]byte, 512)
	if _, err := w.files[stamp].ReadAt(b, place(h.index)); err != nil && err != io.EOF {
		w.t.Fatal(err)
	}
	return text(b)
}

// keepWriting begins to write to a logical unit until rest, whatever it is told, and
// reports whether the first write succeeded.
func (h *host) keepWriting(ctx context.Context, lun uint16) bool {
	if h.stop == nil {
		h.stop = make(chan struct{})
	}
	d := h.disks[lun]
	if d.stamp == noImage || h.write(ctx, lun) != nil {
		return false
	}
	stop := h.stop
	h.writers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			code, lost := senseOf(h.write(ctx, lun))
			if lost != nil {
				return
			}
			d.told(code)
		}
	})
	return true
}

// rest ends the writers.
func (h *host) rest() {
	if h.stop != nil {
		close(h.stop)
		h.writers.Wait()
		h.stop = nil
	}
}

// told notes a sense code; GOOD and a status without sense data say nothing.
func (d *disk) told(code uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if code != 0 && code>>8 != 0xff && !slices.Contains(d.codes, code) {
		d.codes = append(d.codes, code)
	}
}

// probe writes until that ends in the same way twice, noting the sense codes. It returns
// the last one.
func (h *host) probe(ctx context.Context, lun uint16) (last uint16, err error) {
	d := h.disks[lun]
	for range 10 {
		code, lost := senseOf(h.write(ctx, lun))
		if lost != nil {
			return 0, lost
		}
		if code == 0 || code>>8 == 0xff || code == last {
			return code, nil
		}
		d.told(code)
		last = code
	}
	return last, fmt.Errorf("LUN %d: no end of sense codes, the last is %#x", lun, last)
}

// register puts a reservation key on a logical unit.
func (h *host) register(ctx context.Context, lun uint16, key uint64, persist bool) error {
	flags := byte(0)
	if persist {
		flags = 1 // APTPL
	}
	var cmd initiator.Command
	return h.session.Do(ctx, cmd.ReserveOut(initiator.LUN(lun), 6, 0, 0, key, flags)) // REGISTER AND IGNORE EXISTING KEY
}
