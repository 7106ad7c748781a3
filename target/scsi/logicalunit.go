// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/check"
	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/storage"
)

// LogicalUnitOptions say what a logical unit is. Store must be there for a
// disk; the rest may be zero, and means then what it does in a configuration: a
// disk that is online, can be written, has a write cache and is thin provisioned
// where its store can be.
type LogicalUnitOptions struct {
	Store  storage.Store // what holds the blocks; the logical unit closes it
	Absent bool          // the store is not open, as if Offline, until [LogicalUnit.Arrive]
	Log    *slog.Logger  // nil means slog.Default()

	// ReadOnly is always so when the store is read-only. Without Thin UNMAP and the like free
	// space where the store can.
	storage.BlockOptions

	UnitOptions

	// Omit says which operations the logical unit shall not have, by operation
	// code and service action (-1 for a code without). nil means that it has all.
	Omit func(code byte, action int) bool
}

// The bits of LogicalUnit.state.
const (
	stateOffline     = 1 << iota // taken offline by the operator
	stateEjected                 // no medium after START STOP UNIT with LOEJ
	stateReadOnly                // write-protected by configuration or store
	stateSWP                     // software write protect, Control mode page
	stateDSense                  // descriptor format sense data, Control mode page
	stateWCE                     // write cache enabled, Caching mode page
	stateFlushFailed             // a flush failed: what was written before it may be lost
	stateAbsent                  // the store is not open
)

// A LogicalUnit is a disk over a backing store, or a controller without one.
// It is safe for concurrent use.
type LogicalUnit struct {
	opts         LogicalUnitOptions
	controller   bool
	pages        []ModePage   // in the order of MODE SENSE
	log          *slog.Logger // limited, for what initiators cause
	tellsAborted bool         // TAS, see [Device.TaskAbortedStatus]
	blockSize    uint32
	shift        uint8 // blockSize == 1<<shift
	store        storage.Store
	can          storage.Capabilities // of the store; no Discarder unless the unit is thin provisioned

	state      atomic.Uint32 // state bits
	blocks     atomic.Uint64 // capacity
	attachment atomic.Pointer[attachment]
	stats      counters
	activity   activity
	space      atomic.Pointer[measured]
	missed     string         // ID of the store that a process before had open and this one had not; Restore's
	errs       *limit.Limiter // of log lines about the store

	// medium is held shared by every command that reads or changes blocks, and
	// exclusively by those that must be atomic against all of them (COMPARE
	// AND WRITE, ORWRITE). A flush may take long and holds only open, shared,
	// lest an exclusive holder wait for it and everyone else for that one.
	// Close holds both exclusively: either lock keeps the store open.
	medium sync.RWMutex
	open   sync.RWMutex
	closed bool // changes with both locks held

	flushes flushes

	lost lostWrites

	modes sync.Mutex // serializes changes of mode pages
}

// NewLogicalUnit returns a disk over o.Store.
func NewLogicalUnit(o LogicalUnitOptions) (*LogicalUnit, error) {
	if o.Store == nil {
		return nil, errors.New("scsi: a disk needs a backing store")
	}
	o.BlockOptions.SetDefaults()
	if err := check.Errors(o.BlockOptions.Check); err != nil {
		return nil, fmt.Errorf("scsi: can't make a logical unit: %w", err)
	}
	lu, err := newUnit(o, false)
	if err != nil {
		return nil, err
	}
	lu.blockSize, lu.shift = 512, 9
	if o.BlockSize == 4096 {
		lu.blockSize, lu.shift = 4096, 12
	}
	info := o.Store.Info()
	if info.Size < int64(o.BlockSize) && !o.Absent {
		return nil, fmt.Errorf("scsi: backing store %q is smaller than one block: %d bytes", info.Path, info.Size)
	}
	lu.blocks.Store(uint64(info.Size) >> lu.shift)
	lu.can = storage.Can(o.Store)
	// A store opened for reading can't tell whether it could free space. UNMAP
	// is then a command that ends with WRITE PROTECTED.
	if o.FullyProvisioned() || info.Granularity == 0 && !info.ReadOnly {
		lu.can.Discarder = nil
	}
	_ = lu.MeasureSpace(context.Background()) // it is known when somebody asks; if not, it is left out
	lu.set(stateOffline, o.Offline)
	lu.set(stateAbsent, o.Absent)
	lu.set(stateReadOnly, o.ReadOnly || info.ReadOnly)
	lu.set(stateWCE, *lu.opts.WriteCache)
	lu.set(stateDSense, o.DescriptorSense)
	return lu, nil
}

// NewController returns a storage array controller, which holds no blocks: what
// LUN 0 is when nothing else is there. Of o it uses the identity and the log.
func NewController(o LogicalUnitOptions) (*LogicalUnit, error) {
	o.Store = nil
	if o.Product == "" {
		o.Product = "Controller"
	}
	return newUnit(o, true)
}

// newUnit checks the options that disks and controllers share.
func newUnit(o LogicalUnitOptions, controller bool) (*LogicalUnit, error) {
	o.UnitOptions.SetDefaults()
	if err := check.Errors(o.UnitOptions.Check); err != nil {
		return nil, fmt.Errorf("scsi: can't make a logical unit: %w", err)
	}
	pages := newPages(controller, o.ModePages)
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	return &LogicalUnit{opts: o, controller: controller, pages: pages, tellsAborted: tellsAborted(pages), log: limit.Logger(log), store: o.Store,
		flushes: newFlushes(), errs: limit.New(10, 10*time.Second)}, nil
}

// has reports whether any of the state bits is set.
func (lu *LogicalUnit) has(bits uint32) bool { return lu.state.Load()&bits != 0 }

// set sets or clears state bits.
func (lu *LogicalUnit) set(bits uint32, on bool) {
	if on {
		lu.state.Or(bits)
	} else {
		lu.state.And(^bits)
	}
}

// refuses returns the sense data of an operation that the logical unit's
// state forbids now.
func (lu *LogicalUnit) refuses(op *operation) (s sense, refused bool) {
	st := lu.state.Load()
	if st&(stateOffline|stateAbsent|stateEjected|stateReadOnly|stateSWP) == 0 {
		return sense{}, false
	}
	switch {
	case op.flags&opNeedsMedium != 0 && st&stateEjected != 0:
		return sense{key: keyNotReady, code: ascMediumNotPresent}, true
	case op.flags&opNeedsMedium != 0 && st&(stateOffline|stateAbsent) != 0:
		return sense{key: keyNotReady, code: ascManualIntervention}, true
	case op.flags&opWrites != 0 && st&stateReadOnly != 0:
		return sense{key: keyDataProtect, code: ascWriteProtected}, true
	case op.flags&opWrites != 0 && st&stateSWP != 0:
		return sense{key: keyDataProtect, code: ascSoftwareWriteProtected}, true
	}
	return sense{}, false
}

// UnitInfo is what an operator sees of a logical unit.
type UnitInfo struct {
	Type           string `json:"type"` // "disk" or "controller"
	SCSIID         string `json:"scsi_id"`
	Serial         string `json:"scsi_sn"`
	NAA            string `json:"naa,omitempty"` // in hexadecimal
	LocalNAA       string `json:"-"`             // the second one, that tgt has, in hexadecimal; "" when there is none
	Vendor         string `json:"-"`
	Product        string `json:"-"`
	Size           int64  `json:"size"`       // bytes
	BlockSize      int    `json:"block_size"` // bytes; 1 for a controller
	Online         bool   `json:"online"`
	Removable      bool   `json:"removable"`
	PreventRemoval bool   `json:"prevent_removal"` // some nexus prevents removal
	ReadOnly       bool   `json:"readonly"`        // write-protected by configuration, store or initiator
	SWP            bool   `json:"swp"`             // write-protected by an initiator, in the Control mode page
	WriteCache     bool   `json:"write_cache"`
	Thin           bool   `json:"thin"`
	FlushFailed    bool   `json:"flush_failed"`                 // a flush failed since the store was opened
	StoreType      string `json:"backing_store_type"`           // as tgt names it; "null" for a controller
	StorePath      string `json:"backing_store_path,omitempty"` // "" when there is nothing to name
}

// Identity is what initiators tell the logical unit by.
func (i *UnitInfo) Identity() Identity {
	return Identity{NAA: i.NAA, SCSIID: i.SCSIID, Serial: i.Serial, Vendor: i.Vendor, Product: i.Product, LocalNAA: i.LocalNAA}
}

// Info returns the properties of the logical unit. Its identifiers are empty
// as long as it is not attached and has only default ones.
func (lu *LogicalUnit) Info() UnitInfo {
	st := lu.state.Load()
	info := UnitInfo{
		Type:      "disk",
		SCSIID:    lu.opts.SCSIID,
		Serial:    lu.opts.Serial,
		Vendor:    lu.opts.Vendor,
		Product:   lu.opts.Product,
		Online:    st&(stateOffline|stateAbsent|stateEjected) == 0,
		Removable: lu.opts.Removable,
	}
	if at := lu.attachment.Load(); at != nil {
		info.SCSIID, info.Serial, info.NAA, info.LocalNAA = at.identity.SCSIID, at.identity.Serial, at.identity.NAA, at.identity.LocalNAA
		info.PreventRemoval = at.removalPrevented()
	}
	if lu.controller {
		info.Type, info.BlockSize, info.StoreType = "controller", 1, "null"
		return info
	}
	si := lu.store.Info()
	info.StoreType, info.StorePath = si.Type, si.Path
	info.BlockSize = int(lu.blockSize)
	info.Size = int64(lu.blocks.Load() << lu.shift)
	info.ReadOnly = st&(stateReadOnly|stateSWP) != 0
	info.SWP = st&stateSWP != 0
	info.WriteCache = st&stateWCE != 0
	info.FlushFailed = st&stateFlushFailed != 0
	info.Thin = lu.can.Discarder != nil
	return info
}

// Counters returns what was moved to and from this logical unit.
func (lu *LogicalUnit) Counters() Counters { return lu.stats.load() }

// StoreID returns the ID of the store; while it is not open, of the one that a process
// before has served. A controller has none.
func (lu *LogicalUnit) StoreID() string {
	if lu.controller {
		return ""
	}
	if id := lu.store.Info().ID; id != "" {
		return id
	}
	return lu.missed
}

// LastIO returns when a command has last read or written blocks, zero for never.
// It notices what has happened since the last call, and takes that for now: it is
// as exact as it is called often. [Nexus.LastIO] likewise.
func (lu *LogicalUnit) LastIO() time.Time { return lu.stats.lastIO().Time() }

// Holders returns the initiator ports that hold a reservation or are
// registered, each once.
func (lu *LogicalUnit) Holders() []string {
	at := lu.attachment.Load()
	if at == nil {
		return nil
	}
	s := at.reservations.Snapshot()
	var list []string
	if s.Reserved != nil {
		list = append(list, s.Reserved.InitiatorPort())
	}
	for _, r := range s.Registrations {
		if name := r.Nexus.InitiatorPort(); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// Reservation is who holds a reservation of a logical unit, and how many are registered.
type Reservation struct {
	Type          string `json:"type"`             // as SPC-4 names it; "SPC-2" for RESERVE, "none" for registrations alone
	Holder        string `json:"holder,omitempty"` // initiator port; left out if all that are registered hold it
	Registrations int    `json:"registrations"`
}

// Reservation returns who holds a reservation, nil if nobody does nor is registered.
func (lu *LogicalUnit) Reservation() *Reservation {
	at := lu.attachment.Load()
	if at == nil {
		return nil
	}
	s := at.reservations.Summary()
	r := &Reservation{Type: s.Type.String(), Holder: s.Holder, Registrations: s.Registrations}
	switch {
	case s.Reserved:
		r.Type = "SPC-2"
	case s.Type == 0 && s.Registrations == 0:
		return nil
	}
	return r
}

// ReservationsLost is why reservations that were to persist through power loss could not be
// read, nil if they could.
func (lu *LogicalUnit) ReservationsLost() error {
	at := lu.attachment.Load()
	if at == nil {
		return nil
	}
	return at.reservations.Damage()
}

// SetReadOnly changes the write protection. A store opened read-only stays
// protected.
func (lu *LogicalUnit) SetReadOnly(on bool) {
	if lu.controller {
		return
	}
	lu.set(stateReadOnly, on || lu.store.Info().ReadOnly)
}

// Refresh notices that the backing store has another size now. Initiators
// learn of it by CAPACITY DATA HAS CHANGED.
func (lu *LogicalUnit) Refresh(ctx context.Context) error {
	r := lu.can.Refresher
	if r == nil {
		return nil
	}
	lu.open.RLock()
	defer lu.open.RUnlock()
	if lu.closed {
		return errors.New("can't refresh a closed logical unit")
	}
	size, err := r.Refresh(ctx)
	if err != nil {
		return fmt.Errorf("can't refresh backing store %q: %w", lu.store.Info().Path, err)
	}
	if size < int64(lu.blockSize) {
		return fmt.Errorf("backing store %q is smaller than one block now: %d bytes", lu.store.Info().Path, size)
	}
	if blocks := uint64(size) >> lu.shift; lu.blocks.Swap(blocks) != blocks {
		lu.raise(ascCapacityChanged, nil)
	}
	return nil
}

// Arrive makes known that the store of a logical unit that was Absent is open.
// Initiators learn of it by NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED. If it
// is another one than they have used, it is as with a replaced one in [Device.Restore].
func (lu *LogicalUnit) Arrive() {
	if lu.controller {
		return
	}
	info := lu.store.Info()
	_ = lu.MeasureSpace(context.Background()) // as in NewLogicalUnit
	lu.blocks.Store(uint64(info.Size) >> lu.shift)
	if info.ReadOnly {
		lu.set(stateReadOnly, true)
	}
	lu.raise(ascNotReadyToReady, nil) // before any command gets through
	if at := lu.attachment.Load(); at != nil && lu.missed != "" && info.ID != lu.missed {
		at.raise(ascInquiryDataChanged, nil)
		at.raise(unmet, nil)
		at.reservations.Forget()
		if err := at.reservations.Keep(); err != nil {
			limit.Plain(lu.log).Error("reservations of a disk that was replaced are not forgotten", "lun", at.number, "error", err)
		}
	}
	lu.set(stateAbsent, false)
}

// raise establishes a unit attention condition for every nexus but one.
func (lu *LogicalUnit) raise(code uint16, except *Nexus) {
	if at := lu.attachment.Load(); at != nil {
		at.raise(code, except)
	}
}

// Flush brings what was written to stable storage. Once it has failed it goes
// on failing, as does every flush that an initiator asks for: what was lost
// stays lost until the store is reopened.
func (lu *LogicalUnit) Flush(ctx context.Context) error {
	if lu.controller {
		return nil
	}
	lu.open.RLock()
	defer lu.open.RUnlock()
	if lu.closed {
		return nil
	}
	return lu.flushLocked(ctx)
}

// Close waits for commands under way, flushes however long that takes, and closes the store. Commands
// that come later end with LOGICAL UNIT NOT SUPPORTED.
func (lu *LogicalUnit) Close() error { return lu.close(true) }

// Abandon is Close for a logical unit that another process serves by now: to
// flush what has been written is that process's business.
func (lu *LogicalUnit) Abandon() error { return lu.close(false) }

func (lu *LogicalUnit) close(flush bool) error {
	if lu.controller {
		return nil
	}
	lu.medium.Lock()
	defer lu.medium.Unlock()
	lu.open.Lock()
	defer lu.open.Unlock()
	if lu.closed {
		return nil
	}
	lu.closed = true
	var err error
	if flush && !lu.store.Info().ReadOnly {
		err = lu.flushLocked(context.Background())
	}
	return errors.Join(err, lu.store.Close())
}

// Store returns the backing store, nil for a controller. It stays the logical
// unit's.
func (lu *LogicalUnit) Store() storage.Store { return lu.store }
