// SPDX-License-Identifier: Apache-2.0

package target_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

const exampleName = "iqn.2026-11.com.example:disk"

// A RAM disk, served on one portal until somebody says stop.
func Example() {
	disk := config.LUN{Number: 1, Backend: "ram", Options: storage.Options{Size: 64 << 20}}
	s, err := target.New(target.Options{Config: &config.Config{
		Targets: []config.Target{{Name: exampleName, LUNs: []config.LUN{disk}}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // 3260 is where initiators look first
	if err == nil {
		err = s.AddPortal(l, 1, "")
	}
	if err != nil {
		fmt.Println(errors.Join(err, s.Close()))
		return
	}
	s.Serve()
	for _, t := range s.Status().Targets {
		fmt.Println(t.Name, "has", len(t.LUNs), "logical units, the controller among them")
	}

	// Initiators have 10 s to log out.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("stopped:", s.Shutdown(ctx))
	// Output:
	// iqn.2026-11.com.example:disk has 2 logical units, the controller among them
	// stopped: <nil>
}

// Targets come and go while the Server serves others. Here the program has opened the
// store itself.
func ExampleServer_AddTarget() {
	s, err := target.New(target.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.Serve()

	store, err := storage.NewRAM(64 << 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store, UnitOptions: scsi.UnitOptions{Product: "example"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.AddTarget(&config.Target{Name: exampleName}, map[uint16]*scsi.LogicalUnit{1: lu}); err != nil {
		fmt.Println(errors.Join(err, lu.Close()))
		return
	}
	i := s.LogicalUnit(exampleName, 1).Info()
	fmt.Println(i.Type, i.Product, i.Size>>20, "MiB, online:", i.Online)
	fmt.Println("removed:", s.RemoveTarget(context.Background(), exampleName))
	// Output:
	// disk example 64 MiB, online: true
	// removed: <nil>
}

// A Server follows its configuration: what stays goes on meanwhile.
func ExampleServer_Apply() {
	s, err := target.New(target.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	conf := &config.Config{Targets: []config.Target{{Name: exampleName}}}
	for n := range uint16(2) {
		disk := config.LUN{Number: n + 1, Backend: "ram", Options: storage.Options{Size: 64 << 20}}
		conf.Targets[0].LUNs = append(conf.Targets[0].LUNs, disk)
		p, err := s.Apply(context.Background(), conf, false)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, line := range p.Lines() {
			fmt.Println(line)
		}
	}
	// Output:
	// + target iqn.2026-11.com.example:disk: new, TID 1
	// + target iqn.2026-11.com.example:disk LUN 1: ram, 64 MiB
	// + target iqn.2026-11.com.example:disk LUN 2: ram, 64 MiB
}

// A program that decides itself who may log in, and is told who does.
func ExampleOptions() {
	left := make(chan string, 1)
	s, err := target.New(target.Options{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Authorize: func(l target.Login) error {
			if l.Initiator != "iqn.2026-11.com.example:host" || !l.Address.IsLoopback() {
				return fmt.Errorf("%s is not known here", l.Initiator)
			}
			return nil
		},
		LoggedIn:  func(l target.Login) { fmt.Println(l.Initiator, "is at", l.Target) },
		LoggedOut: func(l target.Login, why error) { left <- fmt.Sprint(l.Initiator, " has left: ", why) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = errors.Join(s.AddPortal(l, 1, ""), s.AddTarget(&config.Target{Name: exampleName}, nil))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	s.Serve()
	for _, name := range []string{"iqn.2026-11.com.example:stranger", "iqn.2026-11.com.example:host"} {
		fmt.Println(logInAndOut(l.Addr().String(), name))
	}
	fmt.Println(<-left)
	// Output:
	// initiator: login refused with status 0x0202
	// iqn.2026-11.com.example:host is at iqn.2026-11.com.example:disk
	// <nil>
	// iqn.2026-11.com.example:host has left: <nil>
}

// logInAndOut is what an initiator does.
func logInAndOut(address, name string) error {
	ctx := context.Background()
	session, err := initiator.Dial(ctx, initiator.Options{Address: address, TargetName: exampleName, InitiatorName: name})
	if err != nil {
		return err
	}
	return session.Logout(ctx)
}
