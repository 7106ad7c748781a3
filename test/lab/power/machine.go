// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

const (
	machineNumber = 1
	machineMemory = 768 // MiB

	bootTime    = 5 * time.Minute
	commandTime = 2 * time.Minute

	// commandPort is where the machine's first process takes commands.
	commandPort = "23"
	readyLine   = "LAB-READY"
)

//go:embed guest.sh
var guestInit []byte

// A machine has disks whose caches are volatile, and is switched off without warning. It boots
// once; the state that it has then, before it has seen any of these disks, is kept, and
// each power-on begins with that state: a boot would take ten times as long under emulation, and
// end at the same point.
type machine struct {
	lab     *lab.Lab
	disks   []*disk
	servers []*server
	qemu    *peer.Process   // nil: off
	power   context.Context // ends with the power
	cutOff  context.CancelFunc
}

// A diskKind is a disk's size and sector, in bytes.
type diskKind struct {
	size   int64
	sector int
}

// newMachine makes a machine with disks of these kinds.
func newMachine(l *lab.Lab, kinds []diskKind) (*machine, error) {
	m := &machine{lab: l}
	for i, k := range kinds {
		d, err := newDisk(k.size, k.sector)
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.disks = append(m.disks, d)
		s, err := serve(d, m.path(fmt.Sprintf("disk%d", i)))
		if err != nil {
			return nil, errors.Join(err, m.close())
		}
		m.servers = append(m.servers, s)
	}
	return m, nil
}

func (m *machine) path(name string) string { return filepath.Join(m.lab.Dir, name) }

// address is the machine's.
func (m *machine) address() string { return lab.MachineAddress(machineNumber) }

// close ends the machine and gives its disks back.
func (m *machine) close() error {
	m.kill()
	for _, s := range m.servers {
		s.close()
	}
	for _, d := range m.disks {
		d.close()
	}
	m.servers, m.disks = nil, nil
	return nil
}

// boot makes the state that each power-on begins with. prepare is what is done in it before.
func (m *machine) boot(ctx context.Context, prepare func(context.Context) error) error {
	initrd, err := os.ReadFile(m.lab.Image("initrd.img"))
	if err != nil {
		return err
	}
	// What the kernel unpacks may be several archives, each at a multiple of four bytes.
	initrd = append(initrd, make([]byte, -len(initrd)&511)...)
	initrd = append(initrd, archive("power-init", guestInit)...)
	if err := os.WriteFile(m.path("initrd"), initrd, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("not up within %v", bootTime))
	defer cancel()
	if err := m.start(ctx, "-qmp", "unix:"+m.path("qmp")+",server=on,wait=off"); err != nil {
		return err
	}
	defer m.kill()
	if err := prepare(ctx); err != nil {
		return err
	}
	return m.save(ctx)
}

// on switches the machine on, with what its disks hold.
func (m *machine) on(ctx context.Context) error {
	m.kill()
	if err := m.start(ctx, "-incoming", "exec:cat "+m.path("state")); err != nil {
		return err
	}
	_, err := m.run(ctx, fmt.Sprintf("date -s @%d >/dev/null\n"+
		"for n in $(seq %d); do echo virtio$n >/sys/bus/virtio/drivers/virtio_blk/bind; done", time.Now().Unix(), len(m.disks)))
	return err
}

// start runs QEMU until the machine takes commands.
func (m *machine) start(ctx context.Context, more ...string) error {
	args := []string{
		"-n", "10", "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-reboot", "-display", "none",
		"-serial", "stdio", "-smp", "1", "-m", strconv.Itoa(machineMemory),
		"-kernel", m.lab.Image("vmlinux"), "-initrd", m.path("initrd"),
		"-append", "console=ttyS0 rdinit=/power-init net.ifnames=0 quiet loglevel=4 mitigations=off audit=0 lab.address=" + m.address(),
		"-drive", "file=" + m.lab.Image("base.img") + ",if=none,id=root,format=raw,read-only=on", "-device", "virtio-blk-pci,drive=root",
	}
	for i, d := range m.disks {
		args = append(args,
			"-drive", fmt.Sprintf("driver=nbd,server.type=unix,server.path=%s,if=none,id=disk%d,cache.direct=off,cache.no-flush=off,discard=unmap", m.path(fmt.Sprintf("disk%d", i)), i),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,write-cache=on,config-wce=off,logical_block_size=%d,physical_block_size=%[2]d", i, d.sector))
	}
	args = append(args, "-netdev", "tap,id=net,ifname="+lab.Tap(machineNumber, 0)+",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01", "-device", "virtio-rng-pci")
	qemu, err := peer.Spawn("nice", append(args, more...)...)
	if err != nil {
		return err
	}
	m.qemu = qemu
	m.power, m.cutOff = context.WithCancel(context.Background())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = peer.Until(ctx, func() error {
		select {
		case <-qemu.Done():
			cancel(errors.New("it went off"))
		default:
		}
		_, err := m.run(ctx, ":")
		return err
	})
	if err != nil {
		return fmt.Errorf("can't switch the machine on: %w\n%s", err, qemu.Log())
	}
	return nil
}

// cut is a power cut: nothing is told, and each disk keeps of what was not flushed what it
// likes. It returns how many sectors have lost their last write.
func (m *machine) cut(random *rand.Rand, keep int) (lost int) {
	m.kill()
	for _, d := range m.disks {
		lost += d.cut(random, keep)
	}
	return lost
}

// kill ends QEMU at once, and waits until what it has sent to the disks is there.
func (m *machine) kill() {
	if m.qemu == nil {
		return
	}
	m.qemu.Kill()
	m.cutOff()
	m.qemu = nil
	for _, s := range m.servers {
		s.drain()
	}
}

// console is the end of what the machine has printed.
func (m *machine) console() string {
	if m.qemu == nil {
		return ""
	}
	return m.qemu.Log()
}

// statusLine is what the output of a command ends with.
const statusLine = "LAB-STATUS "

// run runs a script of the shell in the machine and returns what it printed. What it leaves
// running must not have its output.
func (m *machine) run(ctx context.Context, script string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTime, fmt.Errorf("no answer within %v", commandTime))
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(m.address(), commandPort))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// A machine without power does not close its connections.
	defer context.AfterFunc(m.power, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "{ %s\n} </dev/null 2>&1; status=$?; echo; echo %s$status; exit\n", script, statusLine); err != nil {
		return "", err
	}
	out, err := io.ReadAll(io.LimitReader(conn, 8<<20))
	if ctx.Err() != nil {
		return string(out), fmt.Errorf("%.60q: %w", script, context.Cause(ctx))
	}
	text, status, ended := strings.Cut(string(out), "\n"+statusLine)
	switch {
	case err != nil || !ended:
		return text, fmt.Errorf("%.60q: the machine has not answered to the end: %w", script, errors.Join(err, io.ErrUnexpectedEOF))
	case strings.TrimSpace(status) != "0":
		return text, fmt.Errorf("%.60q: exit status %s\n%s", script, strings.TrimSpace(status), text)
	}
	return text, nil
}

// put copies a program into the machine.
func (m *machine) put(ctx context.Context, file, path string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", lab.HostAddress+":0")
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.Copy(conn, bytes.NewReader(text))
			err = errors.Join(err, conn.Close())
		}
		sent <- err
	}()
	_, err = m.run(ctx, fmt.Sprintf("mkdir -p $(dirname %[1]s) && socat -u TCP:%[2]s STDOUT >%[1]s && chmod 755 %[1]s && test $(stat -c %%s %[1]s) = %[3]d", path, l.Addr(), len(text)))
	l.Close() // so that Accept ends if nobody came
	return errors.Join(err, <-sent)
}

// archive is a cpio archive ("newc") of one executable file.
func archive(name string, text []byte) []byte {
	var b []byte
	entry := func(name string, mode int, text []byte) {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			len(b)+1, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name)+1, 0, name)
		b = append(b, make([]byte, -len(b)&3)...)
		b = append(b, text...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	entry(name, 0o100755, text)
	entry("TRAILER!!!", 0, nil)
	return b
}
