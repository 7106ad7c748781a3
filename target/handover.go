// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Sections of the snapshot and kinds of the files that go with it.
const (
	sectionISCSI  = "iscsi"  // iscsi.NodeState
	sectionSCSI   = "scsi"   // map of target name to scsi.DeviceState
	sectionMemory = "memory" // list of memoryState

	fileConnection = "connection" // the n-th belongs to the n-th connection of sectionISCSI
	fileLock       = "lock"       // holds the lock of the backing store with that path
	fileMemory     = "memory"     // the n-th has the blocks of the n-th RAM disk of sectionMemory
)

// features are those that a snapshot may need of its reader.
var features = []string{featureMemory, featureTasks}

// featureTasks is what a successor must know to take commands from what follows; see [iscsi.Node.SnapshotApart].
const featureTasks = "commands that follow"

// logoutGrace is how long an initiator that may not stay has to log out.
const logoutGrace = 5 * time.Second

// Freeze stops serving: nothing is read, written, accepted or executed when it
// returns nil, and whatever was under way is kept as it is. It waits for
// running commands until ctx ends; when it fails, the error names those in the
// way and the Server serves as before. [Server.Thaw] ends the freeze.
func (s *Server) Freeze(ctx context.Context) error {
	if s == nil {
		return ErrClosed
	}
	if err := s.holdOpening(ctx); err != nil {
		return err
	}
	err := s.pauseAccepting(ctx)
	if err == nil {
		err = s.node.Freeze(ctx)
	}
	if err != nil {
		<-s.opening
		s.resumeAccepting()
	}
	s.mu.Lock()
	s.frozen = err == nil
	s.mu.Unlock()
	return err
}

// Thaw goes on serving after a Freeze. Without one it does nothing.
func (s *Server) Thaw() {
	if s == nil {
		return
	}
	s.mu.Lock()
	frozen := s.frozen
	s.frozen = false
	s.mu.Unlock()
	if !frozen {
		return
	}
	s.node.Thaw()
	<-s.opening
	s.resumeAccepting()
}

// HandOver gives everything that the Server holds to the successor at the
// other end of c and completes the report; began is when the upgrade began. If
// it returns nil the Server is retired: nothing of it runs, and only Close may
// be called. If not, it serves as before and the successor is dead, unless
// moved says that the successor died with everything that it had taken over.
func (s *Server) HandOver(ctx context.Context, c *net.UnixConn, o handoff.Options, began time.Time, r *handoff.Report) (moved bool, err error) {
	if c == nil {
		return false, errNoConnection
	}
	if r == nil {
		r = new(handoff.Report)
	}
	if err := rehearse(); err != nil {
		return false, err
	}
	end, err := s.changeAlone()
	if err != nil {
		return false, err
	}
	defer end()
	if err := s.followed(ctx); err != nil {
		return false, err
	}
	s.flushSettlers(ctx)
	g := &giver{server: s, report: r}
	err = handoff.Give(ctx, c, g, o, began, r)
	g.over()
	if g.committed {
		s.retired.Store(true)
		s.node.Retire()
	}
	return g.committed, err
}

var errNoConnection = errors.New("a hand-over needs a connection to the other process")

// rehearse keeps what is slow the first time out of the pause.
func rehearse() error {
	return handoff.Rehearse(iscsi.NodeState{}, map[string]scsi.DeviceState{}, []memoryState{}, []byte{})
}

// pausing tells the program that a pause begins; end that it is over.
func (s *Server) pausing() (end func()) {
	if s.options.Pausing != nil {
		if end := s.options.Pausing(); end != nil {
			return end
		}
	}
	return func() {}
}

// giver is a Server as the handoff sees it.
type giver struct {
	server    *Server
	report    *handoff.Report
	committed bool
	release   func() // tells that the pause is over; nil before Freeze, and after it
}

func (g *giver) Needs() []string {
	if len(g.server.ramDisks()) > 0 {
		return []string{featureMemory}
	}
	return nil
}

func (g *giver) Freeze(ctx context.Context) error {
	g.release = g.server.pausing()
	return g.server.Freeze(ctx)
}

// over tells that the pause is over, once.
func (g *giver) over() {
	if g.release != nil {
		g.release()
		g.release = nil
	}
}

func (g *giver) Thaw() { g.server.Thaw() }

func (g *giver) Committed() { g.committed = true }

// inPause is how many bytes of data move while everybody waits: 0.03 s of work, and several times that on
// a busy machine. What sessions hold beyond that follows.
const inPause = 16 << 20

func (g *giver) Snapshot(snap *handoff.Snapshot) ([]int, error) {
	most := int64(math.MaxInt64)
	if snap.TakesRest() {
		most = inPause
	}
	state, socks, rest, err := g.server.node.SnapshotApart(most, snap.Known(featureTasks), snap.Err)
	if err != nil {
		return nil, err
	}
	if rest != nil {
		snap.Follow(func(w io.Writer) error {
			g.over() // the successor serves
			return rest.Write(w)
		})
	}
	if err := snap.Put(sectionISCSI, state); err != nil {
		return nil, err
	}
	g.report.Sessions, g.report.Connections = len(state.Sessions), len(state.Connections)
	g.report.Tasks = rest.Tasks()
	for i := range state.Sessions {
		g.report.Tasks += len(state.Sessions[i].Tasks)
	}
	devices := make(map[string]scsi.DeviceState)
	var fds []int
	add := func(kind, name string, c syscall.Conn) error {
		fd, err := handoff.Descriptor(c)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, name, err)
		}
		fds = append(fds, fd)
		snap.Files = append(snap.Files, handoff.File{Kind: kind, Name: name})
		return nil
	}
	for _, c := range socks {
		fds = append(fds, c.FD())
		snap.Files = append(snap.Files, handoff.File{Kind: fileConnection, Name: c.Remote().String()})
	}
	for _, t := range g.server.targets {
		devices[t.conf.Name] = t.device.Snapshot()
		for _, u := range t.device.LogicalUnits() {
			if err := settle(snap.Context(), u.Unit.Store()); err != nil {
				return nil, fmt.Errorf("target %s LUN %d: %w", t.conf.Name, u.Number, err)
			}
			if err := addLock(u.Unit.Store(), add); err != nil {
				return nil, err
			}
		}
	}
	if err := g.putMemory(snap, add); err != nil {
		return nil, err
	}
	if err := g.server.saveState(snap); err != nil {
		return nil, err
	}
	return fds, snap.Put(sectionSCSI, devices)
}

// flushSettlers flushes before the pause, so that settle has little to do within it. Errors
// are ignored here, since settle returns them.
func (s *Server) flushSettlers(ctx context.Context) {
	for _, t := range s.targets {
		for _, u := range t.device.LogicalUnits() {
			if storage.Can(u.Unit.Store()).Settler != nil {
				_ = u.Unit.Flush(ctx)
			}
		}
	}
}

// settle has a store that may keep things to itself show them to the successor.
func settle(ctx context.Context, st storage.Store) error {
	if s := storage.Can(st).Settler; s != nil {
		return s.Settle(ctx)
	}
	return nil
}

// addFile adds a file to a snapshot.
type addFile func(kind, name string, c syscall.Conn) error

// addLock adds the lock of a store that has one.
func addLock(st storage.Store, add addFile) error {
	if l := storage.Can(st).Locked; l != nil && l.LockFile() != nil {
		return add(fileLock, st.Info().Path, l.LockFile())
	}
	return nil
}

// TakeOver takes everything from the predecessor at the other end of c and
// goes on serving the connections. New ones are accepted from Serve on. It
// returns the history of upgrades, this one last. plan is what it changes, for
// people: the predecessor reports it. On an error nothing was
// taken: the caller closes the Server and exits.
func (s *Server) TakeOver(ctx context.Context, c *net.UnixConn, version string, plan ...string) ([]handoff.Report, error) {
	if c == nil {
		return nil, errNoConnection
	}
	if err := rehearse(); err != nil {
		return nil, err
	}
	end, err := s.changeAlone()
	if err != nil {
		return nil, err
	}
	defer end()
	defer s.pausing()()
	t := &taker{server: s}
	defer t.dropRest()
	history, err := handoff.Take(ctx, c, t, handoff.Hello{Version: version, Features: features, Plan: plan})
	if err == nil {
		s.waits.Store(false)
		t.settleMemory()
	}
	return history, err
}

// taker is a Server that restores itself.
type taker struct {
	server   *Server
	unserved []*served     // targets that the configuration dropped while they had sessions
	dropped  []memoryState // RAM disks that it dropped

	leave []dismissed
	rest  *os.File // where data comes from that follows; nil for none
}

func (t *taker) Restore(snap *handoff.Snapshot, files []*os.File) error {
	t.rest = snap.Rest()
	var conns, memory []*os.File
	locks := make(map[fileID][]*os.File)
	for i, f := range files {
		switch d := snap.Files[i]; d.Kind {
		case fileConnection:
			conns = append(conns, f)
		case fileLock:
			id := idOf(f)
			locks[id] = append(locks[id], f)
		case fileMemory:
			memory = append(memory, f)
		default:
			f.Close()
		}
	}
	err := t.takeMemory(snap, memory)
	if err == nil {
		err = t.server.loadState(snap)
	}
	if err == nil {
		err = t.restore(snap, conns, locks)
	} else {
		closeFiles(conns)
	}
	for _, list := range locks {
		for _, f := range list {
			f.Close()
		}
	}
	return err
}

// restore rebuilds the state; what it takes of locks it removes from the map.
func (t *taker) restore(snap *handoff.Snapshot, conns []*os.File, locks map[fileID][]*os.File) error {
	s := t.server
	for _, st := range s.targets {
		for _, u := range st.device.LogicalUnits() {
			if err := adopt(u.Unit, locks); err != nil {
				closeFiles(conns)
				return fmt.Errorf("target %s LUN %d: %w", st.conf.Name, u.Number, err)
			}
		}
	}
	var state iscsi.NodeState
	devices := make(map[string]scsi.DeviceState)
	err := errors.Join(snap.Get(sectionISCSI, &state), snap.Get(sectionSCSI, &devices))
	for _, st := range s.targets {
		if d, ok := devices[st.conf.Name]; ok && err == nil {
			err = st.device.Restore(d)
		}
	}
	if err != nil {
		closeFiles(conns)
		return err
	}
	if err := s.node.Restore(&state, conns, t.find); err != nil {
		return err
	}
	sessions := s.node.Sessions()
	t.leave = t.dismissals(sessions)
	return t.lastDoor(sessions, devices)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// fileID tells files apart, whatever their paths; a device may have several nodes.
type fileID struct{ dev, ino, rdev uint64 }

func idOf(f *os.File) fileID {
	info, err := f.Stat()
	if err != nil {
		return fileID{}
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Mode&syscall.S_IFMT == syscall.S_IFBLK {
		return fileID{rdev: st.Rdev}
	}
	return fileID{dev: st.Dev, ino: st.Ino}
}

// adopt gives a store the lock that was passed on for it, which is its file's and
// not its path's: another file may be at that by now. A store that the
// predecessor did not serve takes its lock itself.
func adopt(lu *scsi.LogicalUnit, locks map[fileID][]*os.File) error {
	st := lu.Store()
	l := storage.Can(st).Locked
	if l == nil || l.LockFile() == nil {
		return nil
	}
	id := idOf(l.LockFile())
	if list := locks[id]; len(list) > 0 {
		locks[id] = list[1:]
		return l.AdoptLock(list[0])
	}
	return l.TakeLock()
}

// find returns the target of a session. One that the configuration dropped
// stays as an empty shell until its initiators have logged out.
func (t *taker) find(name string) *iscsi.Target {
	for _, st := range append(t.server.targets, t.unserved...) {
		if st.conf.Name == name {
			return st.target
		}
	}
	conf := &config.Target{Name: name, Offline: true}
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: name, Log: t.server.strangers})
	if err == nil {
		err = attachController(device, t.server.strangers)
	}
	if err != nil {
		t.server.log.Error("can't keep up a dropped target", "target", name, "error", err)
		return nil
	}
	gone := &served{conf: conf, device: device, target: &iscsi.Target{Name: name, Device: device}}
	t.unserved = append(t.unserved, gone)
	return gone.target
}

// Start lets the sessions go on and asks those to leave that may not stay.
func (t *taker) Start() {
	s := t.server
	s.taken.Store(true)
	s.node.Start()
	if t.rest != nil {
		s.follow(t.rest)
		t.rest = nil
	}
	t.settleDevices()
	for _, i := range t.leave {
		s.log.Info("session asked to log out", "initiator", i.Initiator, "target", i.Target, "reason", i.why)
		s.node.Dismiss(i.TSIH, logoutGrace)
	}
}

// dismissed is a session that may not stay.
type dismissed struct {
	*iscsi.SessionInfo
	why string
}

func (t *taker) dismissals(sessions []iscsi.SessionInfo) []dismissed {
	there := t.server.byName()
	var list []dismissed
	for i := range sessions {
		s := &sessions[i]
		if s.Target == "" {
			continue
		}
		if why := t.server.dismissal(s, there[s.Target]); why != "" {
			list = append(list, dismissed{s, why})
		}
	}
	return list
}

// byName are the targets by their names.
func (s *Server) byName() map[string]*served {
	list := make(map[string]*served, len(s.targets))
	for _, st := range s.targets {
		list[st.conf.Name] = st
	}
	return list
}

// dismissal says why a session may not stay at its target, nil if that is gone, or nothing.
func (s *Server) dismissal(i *iscsi.SessionInfo, st *served) string {
	switch {
	case st == nil:
		return "the target is not served any more"
	case st.conf.Offline:
		return "the target is offline now"
	case !s.offers(st, i.Group):
		return fmt.Sprintf("portal group %d does not offer the target any more", i.Group)
	}
	for _, c := range i.Connections {
		if ok, why := st.target.Allowed(iscsi.Peer{Addr: c.Remote.Addr(), Initiator: i.Initiator, Account: i.Account}); !ok {
			return why
		}
	}
	return ""
}
