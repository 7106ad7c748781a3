// SPDX-License-Identifier: Apache-2.0

package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
	"github.com/gotgtd/gotgtd/supervisor/vault"
)

const (
	// stateVariable has the number of the descriptor of the state that a
	// supervisor leaves to the program that replaces it.
	stateVariable = "UPGRADED_STATE_FD"
	// probeVariable asks a program whether it could take up that state, and
	// has the number of the descriptor for the answer.
	probeVariable = "UPGRADED_PROBE_FD"
	// probeAnswer is the good one.
	probeAnswer = "ok"
	// probeVault in the environment asks for vaultAnswer as the good one, of a program that can take up a
	// vault. One that can't would have its descriptors open for good.
	probeVault  = "UPGRADED_PROBE_VAULT"
	vaultAnswer = "ok, with the vault"
	// probeTimeout bounds the wait for the answer.
	probeTimeout = 5 * time.Second

	stateMagic   = "upgraded"
	stateVersion = 1
	maxState     = 16 << 20 // bytes
)

// savedState is what a supervisor leaves. Descriptors are those of the process
// itself, which goes on. Fields are only ever added.
type savedState struct {
	Magic    string             `json:"magic"`
	Version  int                `json:"version"`
	Began    time.Time          `json:"began"`
	State    State              `json:"state"`
	Number   int                `json:"number"`
	Main     *savedGeneration   `json:"main,omitempty"`
	Retiring []*savedGeneration `json:"retiring,omitempty"`
	StartAt  time.Time          `json:"start_at,omitzero"`
	Sockets  []savedSocket      `json:"sockets"`
	Stored   []savedFile        `json:"stored"`
	Control  int                `json:"control"`
	Notify   int                `json:"notify"`
	Deaths   int                `json:"deaths"`
	Restarts int                `json:"restarts"`
	Reexecs  int                `json:"reexecs"`
	Failure  Failure            `json:"failure"`
	Reloads  Reloads            `json:"reloads,omitzero"`
	Metrics  int                `json:"metrics,omitempty"` // 0: there is none
	Vault    *vault.Saved       `json:"vault,omitempty"`   // nil: there is none, or it could not be left
}

type savedGeneration struct {
	Number   int           `json:"number"`
	PID      int           `json:"pid"`
	Started  time.Time     `json:"started"`
	Ready    time.Time     `json:"ready,omitzero"`
	Status   string        `json:"status"`
	Watchdog time.Duration `json:"watchdog"`
	KillBy   time.Time     `json:"kill_by,omitzero"`
}

type savedSocket struct {
	FD      int    `json:"fd"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Bound   bool   `json:"bound"`
}

type savedFile struct {
	FD   int    `json:"fd"`
	Name string `json:"name"`
	Poll bool   `json:"poll"`
}

func (s *savedState) check() error {
	switch {
	case s.Magic != stateMagic:
		return fmt.Errorf("the state is of kind %q", s.Magic)
	case s.Version != stateVersion:
		return fmt.Errorf("the state has version %d, not %d", s.Version, stateVersion)
	case s.State != Serving && s.State != Stopped && s.State != Waiting:
		return fmt.Errorf("the state is %q", s.State)
	case (s.Main != nil) != (s.State == Serving):
		return fmt.Errorf("the state is %q and the main process is %v", s.State, s.Main)
	case len(s.Sockets) > maxSockets:
		return fmt.Errorf("the state has %d sockets", len(s.Sockets))
	}
	return nil
}

func (g *generation) save() *savedGeneration {
	return &savedGeneration{g.number, g.pid, g.started, g.ready, g.status, g.watchdog, g.killBy}
}

// save describes the service, with descriptors from dup.
func (s *Service) save(dup func(syscall.Conn) int) *savedState {
	st := &savedState{
		Magic: stateMagic, Version: stateVersion, Began: s.began, State: s.state, Number: s.number,
		StartAt: s.startAt, Deaths: s.deaths, Restarts: s.restarts, Reexecs: s.reexecs + 1, Failure: s.failure,
		Control: dup(s.control), Reloads: s.reloads,
	}
	if s.metrics != nil {
		st.Metrics = dup(s.metrics)
	}
	if f, err := s.notify.Duplicate(); err == nil {
		st.Notify = dup(f)
		_ = f.Close()
	}
	if s.main != nil {
		st.Main = s.main.save()
	}
	for _, g := range s.retiring {
		st.Retiring = append(st.Retiring, g.save())
	}
	for _, o := range s.sockets {
		st.Sockets = append(st.Sockets, savedSocket{dup(o.file), o.name, o.address, o.bound})
	}
	for _, f := range s.store.files {
		st.Stored = append(st.Stored, savedFile{dup(f.file), f.name, f.poll})
	}
	return st
}

// write puts the state into a memfd.
func (s *savedState) write() (*os.File, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err := f.Write(text); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func readState(f *os.File) (*savedState, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxState))
	if err != nil {
		return nil, err
	}
	st := new(savedState)
	if err := json.Unmarshal(text, st); err != nil {
		return nil, err
	}
	return st, st.check()
}

// descriptorIn takes the number of a descriptor out of the environment.
func descriptorIn(variable string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(variable))
	if err != nil || fd < firstPassed {
		return nil
	}
	_ = os.Unsetenv(variable)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), variable)
}

// probing reports whether this process was started by a probe.
func probing() bool { return os.Getenv(probeVariable) != "" }

// answerProbe tells whether this program could replace the one that asks.
func answerProbe() error {
	answer := descriptorIn(probeVariable)
	state := descriptorIn(stateVariable)
	if answer == nil || state == nil {
		return errors.New("a probe without its descriptors")
	}
	defer answer.Close()
	defer state.Close()
	_, err := readState(state)
	text := probeAnswer
	if os.Getenv(probeVault) != "" {
		text = vaultAnswer
	}
	if err != nil {
		text = "it can't take up the state: " + err.Error()
	}
	_, _ = answer.WriteString(text)
	return err
}

// prepareReexec finds out whether the program now at the supervisor's path
// could replace it.
func (s *Service) prepareReexec() error {
	st, err := s.save(func(syscall.Conn) int { return firstPassed }).write()
	if err != nil {
		return fmt.Errorf("can't save the state: %w", err)
	}
	defer st.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("can't probe the new binary: %w", err)
	}
	defer r.Close()
	pid, err := forkProbe(s.self, st, w)
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("the new binary %s can't be executed: %w", s.self, err)
	}
	_ = r.SetReadDeadline(time.Now().Add(probeTimeout))
	text, readErr := io.ReadAll(io.LimitReader(r, 4096))
	if readErr != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	var status syscall.WaitStatus
	for _, err = syscall.Wait4(pid, &status, 0, nil); errors.Is(err, syscall.EINTR); {
		_, err = syscall.Wait4(pid, &status, 0, nil)
	}
	switch {
	case readErr != nil:
		return fmt.Errorf("the new binary %s gave no answer within %v", s.self, probeTimeout)
	case len(text) == 0:
		return fmt.Errorf("the new binary %s %s", s.self, describe(status))
	case string(text) != probeAnswer && string(text) != vaultAnswer:
		return fmt.Errorf("the new binary %s: %s", s.self, text)
	}
	s.vaultStays = string(text) == vaultAnswer
	return nil
}

func forkProbe(path string, state, answer *os.File) (pid int, err error) {
	fds := []uintptr{0, 1, 2}
	var raw []syscall.RawConn
	for _, f := range []*os.File{state, answer} {
		c, err := f.SyscallConn()
		if err != nil {
			return 0, err
		}
		raw = append(raw, c)
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", stateVariable, firstPassed), fmt.Sprintf("%s=%d", probeVariable, firstPassed+1), probeVault+"=1")
	err = withFDs(raw, &fds, func() error {
		pid, err = syscall.ForkExec(path, os.Args, &syscall.ProcAttr{Env: env, Files: fds})
		return err
	})
	return pid, err
}

// reexec becomes the program now at the supervisor's path. It returns only if
// that fails, and then nothing has changed.
func (s *Service) reexec() error {
	var kept []int
	var firstErr error
	defer func() {
		for _, fd := range kept {
			_ = unix.Close(fd)
		}
	}()
	dup := func(c syscall.Conn) int {
		n := -1
		err := kernel.Control(c, func(fd int) (err error) {
			n, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD, firstPassed)
			return err
		})
		if err != nil {
			firstErr = errors.Join(firstErr, err)
			return -1
		}
		kept = append(kept, n)
		return n
	}
	state := s.save(dup)
	if s.vault != nil && s.vaultStays {
		saved, undo := s.vault.Keep()
		defer undo()
		state.Vault = saved
	} else if s.vault != nil {
		s.log.Warn("the new supervisor has no vault: what is in it is lost with the next generation that dies", "descriptors", s.vault.Counts().Held)
	}
	st, err := state.write()
	if err = errors.Join(err, firstErr); err != nil {
		return fmt.Errorf("can't save the state: %w", err)
	}
	defer st.Close()
	env := append(os.Environ(), fmt.Sprintf("%s=%d", stateVariable, dup(st)))
	if firstErr != nil {
		return fmt.Errorf("can't save the state: %w", firstErr)
	}
	s.log.Info("replacing the supervisor", "binary", s.self)
	return fmt.Errorf("can't execute %s: %w", s.self, syscall.Exec(s.self, os.Args, env))
}

// inheritedState is the descriptor of the state that this program's
// predecessor in the same process has left, if any.
func inheritedState() *os.File { return descriptorIn(stateVariable) }

// resume takes up that state.
func (s *Service) resume(f *os.File) error {
	defer f.Close()
	st, err := readState(f)
	if err != nil {
		return fmt.Errorf("can't take up the state: %w", err)
	}
	s.began, s.number, s.state = st.Began, st.Number, st.State
	s.startAt, s.deaths, s.restarts, s.reexecs, s.failure = st.StartAt, st.Deaths, st.Restarts, st.Reexecs, st.Failure
	s.reloads = st.Reloads
	if err := s.resumeFiles(st); err != nil {
		return err
	}
	if err := s.openVault(st.Vault); err != nil {
		return err
	}
	if st.Main != nil {
		if s.main, err = s.resumeGeneration(st.Main); err != nil {
			s.failed(err)
			s.retryLater(err)
		} else if s.main.watchdog > 0 {
			s.main.pingBy = time.Now().Add(s.main.watchdog)
		}
	}
	for _, saved := range st.Retiring {
		if g, err := s.resumeGeneration(saved); err == nil {
			s.retiring = append(s.retiring, g)
		}
	}
	s.log.Info("the supervisor has been replaced", "reexecs", s.reexecs, "version", s.cfg.Version)
	s.reap()
	s.up.text(s.summary())
	return nil
}

func (s *Service) resumeGeneration(saved *savedGeneration) (*generation, error) {
	g, err := hold(saved.Number, saved.PID, s.ended, s.done)
	if err != nil {
		return nil, err
	}
	g.started, g.ready, g.status = saved.Started, saved.Ready, saved.Status
	g.watchdog, g.killBy = saved.Watchdog, saved.KillBy
	if ancestry(g.pid) == nil {
		g.release()
		return nil, fmt.Errorf("process %d is no process of the service any more", g.pid)
	}
	return g, nil
}

func (s *Service) resumeFiles(st *savedState) error {
	take := func(fd int, name string) *os.File {
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), name)
	}
	for _, o := range st.Sockets {
		s.sockets = append(s.sockets, &socket{o.Name, o.Address, o.Bound, take(o.FD, o.Name)})
	}
	for _, saved := range st.Stored {
		if err := s.store.takeUp([]*os.File{take(saved.FD, saved.Name)}, saved.Poll); err != nil {
			s.log.Warn("stored descriptor lost", "error", err)
		}
	}
	control := take(st.Control, "control")
	defer control.Close()
	l, err := net.FileListener(control)
	if err != nil {
		return fmt.Errorf("can't take up the control socket: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return fmt.Errorf("can't take up the control socket: it is a %T", l)
	}
	unixListener.SetUnlinkOnClose(false)
	s.control = unixListener
	if err := s.resumeMetrics(st.Metrics, take); err != nil {
		s.log.Error("metrics are not served any more: restart the unit when it suits", "error", err)
	}
	notifications := take(st.Notify, "notify")
	defer notifications.Close()
	s.notify, err = notify.Resume(notifications)
	return err
}
