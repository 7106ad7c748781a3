// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"encoding/binary"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
)

// bench is a connection without a reading goroutine, whose input comes from memory
// and whose output goes nowhere, so that what is between can be measured by itself.
type bench struct {
	node  *Node
	c     *conn
	cmdSN uint32
	input []byte // put and not yet read
	pdus  int    // written
}

func (b *bench) Read(p []byte) (int, error) {
	n := copy(p, b.input)
	b.input = b.input[:copy(b.input, b.input[n:])]
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

func (b *bench) Writev(iov []unix.Iovec) (n int, err error) {
	for i := range iov {
		n += int(iov[i].Len)
		if iov[i].Len == pdu.BHSLen { // no data segment here has that length
			b.pdus++
		}
	}
	return n, nil
}

func (b *bench) AwaitRead(func(uintptr) bool) (bool, error)  { return false, net.ErrClosed }
func (b *bench) AwaitWrite(func(uintptr) bool) (bool, error) { return false, net.ErrClosed }

func newBench(tb testing.TB) *bench {
	tb.Helper()
	n := NewNode(Options{Log: slog.New(slog.DiscardHandler), Arena: withArena})
	tb.Cleanup(n.Close)
	target, _ := newDisk(tb, Limits{}, Auth{})
	n.SetTargets([]*Target{target}, announced, Auth{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { far.Close() })
	near, err := l.(*net.TCPListener).AcceptTCP()
	if err != nil {
		tb.Fatal(err)
	}
	sock, err := socket.New(n.seats, near)
	if err != nil {
		tb.Fatal(err)
	}
	c := n.newConn(sock, 1)
	if err := n.addConn(c); err != nil {
		tb.Fatal(err)
	}
	b := &bench{node: n, c: c, cmdSN: 1}
	c.in.Init(&reader{c, n}, b, c.pool, c.pool)
	c.out.Init((*writer)(c), b, rankOutput)
	tb.Cleanup(b.close)
	b.put(loginPDU())
	b.put(encode(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 2, CmdSN: 1}, nil)) // takes the unit attention
	b.cmdSN++
	b.handle(tb)
	if b.c.sess == nil {
		tb.Fatal("the login failed")
	}
	return b
}

func (b *bench) close() {
	b.c.close(errShutdown)
	if b.c.sess != nil {
		b.c.sess.connectionLost(&b.c.transport)
	}
	b.c.in.Release()
	b.c.out.Discard()
	close(b.c.done)
	b.node.removeConn(b.c)
}

// put appends bytes to what can be read.
func (b *bench) put(p []byte) { b.input = append(b.input, p...) }

// handle handles everything that was put, and lets go of the answers. It returns
// how many PDUs there were.
func (b *bench) handle(tb testing.TB) (pdus int) {
	for len(b.input) > 0 {
		err := b.c.in.More()
		if err == nil {
			err = b.c.handleInput()
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return b.drop()
}

// drop makes the PDUs of what is queued and lets go of them.
func (b *bench) drop() (pdus int) {
	b.pdus = 0
	b.c.out.Flush()
	return b.pdus
}

// batchOf is how many commands arrive at once.
const batchOf = 32

// commands puts a batch of one command, under tags from 0.
func (b *bench) commands(p []byte) {
	for tag := range uint32(batchOf) {
		b.command(p, tag)
	}
}

// command puts a command, of which it sets the Initiator Task Tag and the CmdSN.
func (b *bench) command(p []byte, tag uint32) {
	binary.BigEndian.PutUint32(p[16:], tag)
	binary.BigEndian.PutUint32(p[24:], b.cmdSN)
	b.cmdSN++
	b.put(p)
}

// hotBatches are what is done for a batch: to parse, dispatch and execute
// commands and make their answers; and the making of answers alone.
func hotBatches(b *bench) map[string]func(tb testing.TB) {
	read := encode(read10(7, 0, 64, 1), nil)
	write := encode(write10(7, 0, 64, 1, 512), pattern(512, 1))
	nop := encode(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}, nil)
	solicited := encode(write10(7, 0, 64, 1, 0), nil)
	dataOut := encode(&pdu.DataOut{Final: true, DataLength: 512, LUN: lun1}, pattern(512, 1))
	response := pdu.SCSIResponse{Response: pdu.CommandCompleted, InitiatorTaskTag: 7}
	return map[string]func(testing.TB){
		"reads":  func(tb testing.TB) { b.commands(read); b.handle(tb) },
		"writes": func(tb testing.TB) { b.commands(write); b.handle(tb) },
		"NOP-Outs": func(tb testing.TB) {
			for range batchOf {
				b.put(nop)
			}
			b.handle(tb)
		},
		"R2Ts": func(tb testing.TB) {
			b.commands(solicited)
			b.handle(tb)
			for tag := range uint32(batchOf) {
				binary.BigEndian.PutUint32(dataOut[16:], tag)
				binary.BigEndian.PutUint32(dataOut[20:], b.c.sess.window.LastTag()-batchOf+1+tag) // the R2T's
				b.put(dataOut)
			}
			if n := b.handle(tb); n != batchOf {
				tb.Fatalf("%d responses, want %d", n, batchOf)
			}
		},
		"responses": func(tb testing.TB) {
			for range batchOf {
				b.c.out.Send(header(&response), true)
			}
			if n := b.drop(); n != batchOf {
				tb.Fatalf("%d PDUs, want %d", n, batchOf)
			}
		},
	}
}

func TestBatchesAllocateNothing(t *testing.T) {
	for name, f := range hotBatches(newBench(t)) {
		n := testing.AllocsPerRun(200, func() { f(t) }) / batchOf
		if n > allowedAllocs {
			t.Errorf("%s: %.3f allocations each", name, n)
		}
	}
}

func BenchmarkBatch(b *testing.B) {
	conn := newBench(b)
	for name, f := range hotBatches(conn) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchOf), "ns/PDU")
		})
	}
}
