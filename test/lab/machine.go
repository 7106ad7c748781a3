// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// bootTime is how long a machine may take to be ready.
const bootTime = 10 * time.Minute

// readyLine is what a machine prints on its console when it is up.
const readyLine = "LAB-READY"

// MachineOptions say what a machine is.
type MachineOptions struct {
	// Number is 1 to 9, and makes its name and addresses.
	Number int
	// Xen starts Xen, and Linux as its first domain.
	Xen bool
	// CPUs and Memory (MiB) are what it has; zero means 2 and 2048, and 1 and 1024
	// under Xen, where the first domain has 512 MiB of them.
	CPUs, Memory int
}

// Machine is a virtual machine.
type Machine struct {
	lab     *Lab
	options MachineOptions
	disk    string

	mu   sync.Mutex    // protects what follows
	qemu *peer.Process // nil: off
	ssh  *peer.Process // the connection that all commands share; nil: none
}

// Machine makes a machine, which is off.
func (l *Lab) Machine(o MachineOptions) *Machine {
	if o.CPUs == 0 {
		o.CPUs = 2
		if o.Xen {
			o.CPUs = 1
		}
	}
	if o.Memory == 0 {
		o.Memory = 2048
		if o.Xen {
			o.Memory = 1024
		}
	}
	m := &Machine{lab: l, options: o}
	m.disk = filepath.Join(l.Dir, m.Name()+".qcow2")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.machines = append(l.machines, m)
	return m
}

// Name is the machine's host name.
func (m *Machine) Name() string { return "host" + strconv.Itoa(m.options.Number) }

// Address is the machine's address on the first network.
func (m *Machine) Address() string { return MachineAddress(m.options.Number) }

// Address2 is the machine's address on the second network.
func (m *Machine) Address2() string { return fmt.Sprintf("172.16.32.%d", 10+m.options.Number) }

// Boot starts the machine and waits until it is up and answers. Its disk is as it
// was when it went off; the first time, as the image is.
func (m *Machine) Boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("not up within %v", bootTime))
	defer cancel()
	if _, err := os.Stat(m.disk); errors.Is(err, os.ErrNotExist) {
		_, err := peer.Run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
			"-b", m.lab.Image("base.img"), m.disk)
		if err != nil {
			return err
		}
	}
	// The machines would take every core there is from the target that they use.
	qemu, err := peer.Spawn("nice", append([]string{"-n", "10", "qemu-system-x86_64"}, m.arguments()...)...)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.qemu = qemu
	m.mu.Unlock()
	up := func() error {
		select {
		case <-qemu.Done():
			return errors.New("it went off")
		default:
		}
		if !strings.Contains(qemu.Log(), readyLine) {
			return errors.New("it does not say that it is up")
		}
		return nil
	}
	if err := untilOrDone(ctx, qemu, up); err != nil {
		return fmt.Errorf("can't boot %s: %w", m.Name(), err)
	}
	return m.connect(ctx)
}

// untilOrDone is peer.Until, which it leaves as soon as the process has ended.
func untilOrDone(ctx context.Context, p *peer.Process, f func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return peer.Until(ctx, func() error {
		err := f()
		select {
		case <-p.Done():
			cancel(errors.New("it has ended"))
		default:
		}
		return err
	})
}

// arguments are QEMU's.
func (m *Machine) arguments() []string {
	image := m.lab.Image
	kernel := fmt.Sprintf("net.ifnames=0 lab.host=%d quiet loglevel=4 mitigations=off audit=0 systemd.show_status=0", m.options.Number)
	args := []string{
		"-machine", "pc", "-accel", "tcg,thread=multi", "-nodefaults", "-no-reboot", "-display", "none",
		"-serial", "stdio", "-smp", strconv.Itoa(m.options.CPUs), "-m", strconv.Itoa(m.options.Memory),
		// What a machine writes is worth nothing when the run is over.
		"-drive", "file=" + m.disk + ",if=none,id=root,format=qcow2,cache=unsafe",
		"-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci",
	}
	for i := range bridges {
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,ifname=%s,script=no,downscript=no", i, Tap(m.options.Number, i)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=52:54:00:00:0%d:0%d", i, i, m.options.Number))
	}
	if !m.options.Xen {
		return append(args, "-cpu", "max", "-kernel", image("vmlinux"), "-initrd", image("initrd.img"),
			"-append", "console=ttyS0 "+kernel)
	}
	// What QEMU emulates wrongly under Xen: with SMAP the first domain dies at iretq, with
	// AVX the registers of its programs get mixed up once a guest runs. An AMD
	// processor without them also spares the page table isolation. It needs
	// nested paging, for a guest can't be migrated live without.
	xen := fmt.Sprintf("console=com1 com1=115200,8n1 dom0_mem=512M,max:512M dom0_max_vcpus=%d loglvl=warning "+
		"guest_loglvl=warning spec-ctrl=no,eager-fpu xpti=0 pv-l1tf=0", m.options.CPUs)
	return append(args, "-cpu", "Opteron_G3,-misalignsse,+npt,-rdtscp", "-kernel", image("xen"), "-append", xen,
		"-initrd", image("vmlinux")+" console=hvc0 lab.xen "+kernel+","+image("initrd.img"))
}

// PowerOff shuts the machine down in order and waits until it is off.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	qemu := m.qemu
	m.mu.Unlock()
	if qemu == nil {
		return fmt.Errorf("%s is off already", m.Name())
	}
	// The connection may end before the command does: what tells is that the machine is off.
	_, err := m.Run(ctx, "systemctl --no-block poweroff")
	select {
	case <-qemu.Done():
		m.Kill()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("can't shut %s down: %w", m.Name(), errors.Join(context.Cause(ctx), err))
	}
}

// Kill switches the machine off, as a power failure would.
func (m *Machine) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range []**peer.Process{&m.ssh, &m.qemu} {
		if *p != nil {
			(*p).Kill()
			*p = nil
		}
	}
}

// Console is the end of what the machine has printed on its console since it was
// switched on, up to 256 KiB.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qemu == nil {
		return ""
	}
	return strings.ReplaceAll(m.qemu.Log(), "\r", "")
}

// explainLines is how much of each log is shown when a step has failed.
const explainLines = 40

// explain prints the ends of the console and of the journal.
func (m *Machine) explain(ctx context.Context, w io.Writer) {
	console := m.Console()
	if console == "" {
		return
	}
	fmt.Fprintf(w, "--- %s: console\n%s\n", m.Name(), lastLines(console, explainLines))
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	journal, err := m.Run(ctx, fmt.Sprintf("journalctl --no-pager -q -o short-precise -n %d", explainLines))
	if err != nil {
		fmt.Fprintf(w, "--- %s has no journal to show: %v\n", m.Name(), err)
		return
	}
	fmt.Fprintf(w, "--- %s: journal\n%s\n", m.Name(), strings.TrimRight(journal, "\n"))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
