// SPDX-License-Identifier: Apache-2.0

// Package hostile attacks a real gotgtd from the network, as an initiator that keeps no
// rule, and measures what that costs the daemon and an innocent initiator. Its [Client]
// builds PDUs itself and checks nothing: what the target uses must not test itself.
//
// Each attack is a test that prints its figures and asserts its bounds, with room for a
// busy machine. `make gate` runs them, one after the other.
package hostile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Opcodes of RFC 7143 11.2.1.2.
const (
	NOPOut      = 0x00
	SCSICommand = 0x01
	TaskMgmtReq = 0x02
	LoginReq    = 0x03
	TextReq     = 0x04
	DataOut     = 0x05
	LogoutReq   = 0x06

	NOPIn        = 0x20
	SCSIResponse = 0x21
	TaskMgmtResp = 0x22
	LoginResp    = 0x23
	TextResp     = 0x24
	DataIn       = 0x25
	LogoutResp   = 0x26
	R2T          = 0x31
	AsyncMessage = 0x32
	Reject       = 0x3f
)

// NoTag is the reserved task tag.
const NoTag = 0xffffffff

// PDU is a PDU as it is on the wire, without digests. Nothing in it has to be right.
type PDU struct {
	Header [48]byte
	Data   []byte // the data segment; [PDU.Bytes] pads it
}

// NewPDU returns a PDU with an opcode, final, that is immediate if that is said, with its data segment.
func NewPDU(opcode byte, immediate bool, data []byte) PDU {
	p := PDU{Data: data}
	p.Header[0] = opcode
	if immediate {
		p.Header[0] |= 0x40
	}
	p.Header[1] = 0x80
	p.SetDataLength(len(data))
	return p
}

// Opcode is what the PDU says that it is.
func (p *PDU) Opcode() byte { return p.Header[0] & 0x3f }

// SetDataLength makes the header tell a length of the data segment.
func (p *PDU) SetDataLength(n int) {
	p.Header[5], p.Header[6], p.Header[7] = byte(n>>16), byte(n>>8), byte(n)
}

// DataLength is the length that the header tells.
func (p *PDU) DataLength() int { return int(p.Header[5])<<16 | int(p.Header[6])<<8 | int(p.Header[7]) }

// Set writes a field of four bytes of the header.
func (p *PDU) Set(offset int, v uint32) { binary.BigEndian.PutUint32(p.Header[offset:], v) }

// Get reads a field of four bytes of the header.
func (p *PDU) Get(offset int) uint32 { return binary.BigEndian.Uint32(p.Header[offset:]) }

// Tag is the initiator task tag.
func (p *PDU) Tag() uint32 { return p.Get(16) }

// SetLUN addresses a logical unit with a number below 256.
func (p *PDU) SetLUN(n byte) { p.Header[9] = n }

// Bytes is the PDU with its data segment, padded.
func (p *PDU) Bytes() []byte {
	b := append(p.Header[:len(p.Header):len(p.Header)], p.Data...)
	return append(b, make([]byte, -len(p.Data)&3)...)
}

// Client is a connection. Its numbers are what the next PDU carries that one of its methods
// builds; whoever wants others sets them, or builds the PDU.
type Client struct {
	net.Conn
	CmdSN, ExpStatSN uint32
	LastTag          uint32
	ISID             [6]byte
	Timeout          time.Duration // of each Send and Receive; zero: 20 s
}

// Dial connects to a portal. from is the address to come from, such as 127.0.0.2; the
// zero Addr leaves that to the system.
func Dial(ctx context.Context, portal string, from netip.Addr) (*Client, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", portal)
	if err != nil {
		return nil, err
	}
	return &Client{Conn: conn, CmdSN: 1, ISID: [6]byte{0x80}}, nil
}

func (c *Client) timeout() time.Time {
	if c.Timeout > 0 {
		return time.Now().Add(c.Timeout)
	}
	return time.Now().Add(20 * time.Second)
}

// Send writes PDUs in one piece.
func (c *Client) Send(pdus ...PDU) error {
	var all []byte
	for i := range pdus {
		all = append(all, pdus[i].Bytes()...)
	}
	return c.SendBytes(all)
}

// SendBytes writes anything.
func (c *Client) SendBytes(b []byte) error {
	if err := c.SetWriteDeadline(c.timeout()); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// Receive reads one PDU.
func (c *Client) Receive() (p PDU, err error) {
	if err := c.SetReadDeadline(c.timeout()); err != nil {
		return p, err
	}
	if _, err := io.ReadFull(c, p.Header[:]); err != nil {
		return p, err
	}
	n := p.DataLength()
	p.Data = make([]byte, n+(-n&3))
	if _, err := io.ReadFull(c, p.Data); err != nil {
		return p, err
	}
	p.Data = p.Data[:n]
	if p.Opcode() != DataIn || p.Header[1]&1 != 0 { // only a PDU with status counts
		c.ExpStatSN = p.Get(24) + 1
	}
	return p, nil
}

// Expect reads PDUs until one has an opcode, and returns that.
func (c *Client) Expect(opcode byte) (PDU, error) {
	for {
		p, err := c.Receive()
		if err != nil {
			return p, fmt.Errorf("waiting for a PDU %#x: %w", opcode, err)
		}
		if p.Opcode() == opcode {
			return p, nil
		}
	}
}

// number gives a PDU the next task tag and CmdSN.
func (c *Client) number(p *PDU) {
	c.LastTag++
	p.Set(16, c.LastTag)
	p.Set(24, c.CmdSN)
	p.Set(28, c.ExpStatSN)
	if p.Header[0]&0x40 == 0 {
		c.CmdSN++
	}
}

// Text joins key=value pairs as login and text requests carry them.
func Text(pairs ...string) []byte { return []byte(strings.Join(pairs, "\x00") + "\x00") }

// LoginPDU is a login in one step, from operational negotiation to full feature phase.
func (c *Client) LoginPDU(text []byte) PDU {
	p := NewPDU(LoginReq, true, text)
	p.Header[1] = 0x80 | 1<<2 | 3 // T, CSG 1, NSG 3
	copy(p.Header[8:], c.ISID[:])
	c.number(&p)
	return p
}

// Login logs in to a target in one step, without authentication. A target of "" opens a
// discovery session. A key of keys may repeat one that is sent anyway.
func (c *Client) Login(initiator, target string, keys ...string) error {
	pairs := []string{"InitiatorName=" + initiator}
	if target == "" {
		pairs = append(pairs, "SessionType=Discovery")
	} else {
		pairs = append(pairs, "TargetName="+target)
	}
	if err := c.Send(c.LoginPDU(Text(append(pairs, keys...)...))); err != nil {
		return err
	}
	p, err := c.Receive()
	switch {
	case err != nil:
		return fmt.Errorf("login: %w", err)
	case p.Opcode() != LoginResp:
		return fmt.Errorf("login: answered with a PDU %#x", p.Opcode())
	case p.Header[36] != 0:
		return fmt.Errorf("login: status %02x%02x", p.Header[36], p.Header[37])
	}
	return nil
}

// Command is a SCSI command for LUN 1 that reads or writes length bytes, with immediate data.
func (c *Client) Command(cdb []byte, write bool, length uint32, immediate []byte) PDU {
	p := NewPDU(SCSICommand, false, immediate)
	switch {
	case write:
		p.Header[1] |= 0x20
	case length > 0:
		p.Header[1] |= 0x40
	}
	p.Header[1] |= 1 // SIMPLE
	p.SetLUN(1)
	p.Set(20, length)
	copy(p.Header[32:], cdb)
	c.number(&p)
	return p
}

// Transfer is the CDB of a READ (16) or WRITE (16).
func Transfer(write bool, lba uint64, blocks uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0] = 0x88
	if write {
		cdb[0] = 0x8a
	}
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], blocks)
	return cdb
}

// NOP is a NOP-Out that asks for an answer.
func (c *Client) NOP(immediate bool, data []byte) PDU {
	p := NewPDU(NOPOut, immediate, data)
	p.Set(20, NoTag)
	c.number(&p)
	return p
}

// TextPDU is an immediate text request that begins an exchange, or with a transfer tag goes on
// with the one of the last task tag.
func (c *Client) TextPDU(transferTag uint32, data []byte) PDU {
	p := NewPDU(TextReq, true, data)
	if transferTag != NoTag {
		c.LastTag--
	}
	c.number(&p)
	p.Set(20, transferTag)
	return p
}

// Management is an immediate task management request for LUN 1.
func (c *Client) Management(function byte, referenced uint32) PDU {
	p := NewPDU(TaskMgmtReq, true, nil)
	p.Header[1] = 0x80 | function
	p.SetLUN(1)
	c.number(&p)
	p.Set(20, referenced)
	return p
}

// Settle sends TEST UNIT READY until no unit attention is left.
func (c *Client) Settle() error {
	for {
		if err := c.Send(c.Command(make([]byte, 6), false, 0, nil)); err != nil {
			return err
		}
		p, err := c.Expect(SCSIResponse)
		if err != nil || p.Header[3] == 0 {
			return err
		}
	}
}
