// SPDX-License-Identifier: Apache-2.0

// Package lab runs this project's programs under software that others wrote: systemd
// as PID 1, the Linux kernel's initiator, Xen; and it cuts the power. It drives virtual machines of
// QEMU, emulated, so that no hardware support is needed; it has to run as root.
//
// A suite is a function that gets a [Lab] and does its work in steps:
//
//	func Run(ctx context.Context, l *lab.Lab) error {
//		host := l.Machine(lab.MachineOptions{Number: 1})
//		if err := l.Step(ctx, "boot", host.Boot); err != nil {
//			return err // nothing else can be tried
//		}
//		l.Step(ctx, "uname", func(ctx context.Context) error {
//			out, err := host.Run(ctx, "uname -r")
//			...
//		})
//		return nil
//	}
//
// and is entered in the list of the command test/cmd/lab, which prints the steps,
// writes the report and exits with 1 if a step has failed.
//
// # Where things are
//
// Each suite has a process with PID, mount and network namespaces of its own: whatever it started dies with
// it, however it ends, and addresses and ports are always the same and always
// free, also if several suites run side by side. The suite itself is at [HostAddress] and [HostAddress2], on two networks
// without any way out; machine N is at 172.16.31.10+N and 172.16.32.10+N, and named
// hostN. All machines boot from one image, each with a disk of its own on top
// of it, which lives until the end of the suite.
//
// # What a suite has
//
//   - [Lab.Step], [Lab.Mark], [Lab.Figure]: what the report tells;
//   - [Machine]: Boot, PowerOff, Kill, Run, Start, Put, Console;
//   - [Machine.Login], [Machine.Logout], [Machine.Watch]: the kernel's initiator, and
//     whether it was disturbed;
//   - [Machine.StartIO]: I/O with verification, whose latencies the report draws;
//   - [Lab.Packages], [Machine.Install]: the project installed in a machine;
//   - [Lab.StartTarget]: gotgtd outside of the machines, and its upgrades;
//   - [Lab.Program]: the project's programs, static, for [Machine.Put].
package lab
