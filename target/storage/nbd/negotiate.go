// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Numbers of the handshake.
const (
	serverMagic  = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic  = 0x49484156454f5054 // "IHAVEOPT"
	replyMagic   = 0x3e889045565a9
	fixedStyle   = 1 // NBD_FLAG_FIXED_NEWSTYLE
	optGo        = 7
	infoExport   = 0
	infoBlock    = 3
	repAck       = 1
	repInfo      = 3
	repError     = 1 << 31
	maxReply     = 64 << 10 // bytes of an option's reply, whose texts have 4,096 at the most
	maxReplies   = 64       // replies to one option
	maxName      = 4096     // bytes of an export's name
	defaultBlock = 32 << 20 // bytes of a request, where the server names no maximum
)

// Transmission flags.
const (
	hasFlags       = 1 << 0
	readOnly       = 1 << 1
	canFlush       = 1 << 2
	canFUA         = 1 << 3
	canTrim        = 1 << 5
	canWriteZeroes = 1 << 6
)

// refusals are the errors that a server answers an option with.
var refusals = map[uint32]string{
	1: "it does not know NBD_OPT_GO: only servers of the fixed newstyle handshake that do are supported",
	2: "it refuses by its policy",
	5: "it asks for TLS, which backend nbd does not have",
	6: "it has no such export: set options: {export: NAME}",
	7: "it is shutting down",
}

// An export is what a server says of what it serves.
type export struct {
	size  uint64
	flags uint16

	// Bytes that a request is made of: at the least, for speed, and at the most.
	least, preferred, most uint32
}

func (e *export) can(flag uint16) bool { return e.flags&flag != 0 }

// negotiate makes the fixed newstyle handshake over a new connection. No length that the server
// names is trusted.
func negotiate(c io.ReadWriter, name string) (*export, error) {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return nil, fmt.Errorf("no greeting from the server: %w", err)
	}
	if binary.BigEndian.Uint64(hello[:]) != serverMagic || binary.BigEndian.Uint64(hello[8:]) != optionMagic {
		return nil, errors.New("what listens there is no NBD server of the newstyle handshake")
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&fixedStyle == 0 {
		return nil, errors.New("the server lacks the fixed newstyle handshake")
	}
	b := binary.BigEndian.AppendUint32(nil, fixedStyle)
	b = binary.BigEndian.AppendUint64(b, optionMagic)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(name)+2+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, infoBlock)
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	return readExport(c)
}

// readExport reads the replies to NBD_OPT_GO.
func readExport(r io.Reader) (*export, error) {
	e := &export{least: 1, preferred: 4096, most: defaultBlock}
	for range maxReplies {
		kind, data, err := readReply(r)
		switch {
		case err != nil:
			return nil, err
		case kind == repAck:
			return e, e.check()
		case kind == repInfo:
			if err := e.inform(data); err != nil {
				return nil, err
			}
		case kind&repError != 0:
			text := refusals[kind&^repError]
			if text == "" {
				text = fmt.Sprintf("it answers with error %d", kind&^repError)
			}
			return nil, fmt.Errorf("the server does not give the export: %s", text)
		default:
			return nil, fmt.Errorf("the server answers NBD_OPT_GO with a reply of the unknown type %d", kind)
		}
	}
	return nil, fmt.Errorf("the server has more than %d replies to NBD_OPT_GO", maxReplies)
}

// readReply reads one reply to NBD_OPT_GO.
func readReply(r io.Reader) (kind uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("no answer to NBD_OPT_GO: %w", err)
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != replyMagic || binary.BigEndian.Uint32(head[8:]) != optGo || n > maxReply {
		return 0, nil, errors.New("the server's answer to NBD_OPT_GO is none")
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return binary.BigEndian.Uint32(head[12:]), data, err
}

// inform takes over one NBD_REP_INFO.
func (e *export) inform(data []byte) error {
	if len(data) < 2 {
		return errors.New("the server's information on the export is too short")
	}
	switch kind := binary.BigEndian.Uint16(data); {
	case kind == infoExport && len(data) == 12:
		e.size, e.flags = binary.BigEndian.Uint64(data[2:]), binary.BigEndian.Uint16(data[10:])
	case kind == infoBlock && len(data) == 14:
		e.least, e.preferred, e.most = binary.BigEndian.Uint32(data[2:]), binary.BigEndian.Uint32(data[6:]), binary.BigEndian.Uint32(data[10:])
	case kind == infoExport || kind == infoBlock:
		return fmt.Errorf("the server's information %d on the export has %d bytes", kind, len(data))
	}
	return nil // of another kind: not asked for
}

// check refuses what the protocol does not allow, or could not be worked with.
func (e *export) check() error {
	power := func(n uint32) bool { return bits.OnesCount32(n) == 1 }
	switch {
	case !e.can(hasFlags):
		return errors.New("the server does not say what the export can do")
	case e.size > 1<<62:
		return fmt.Errorf("the export has an impossible size, %d", e.size)
	case !power(e.least) || !power(e.preferred) || e.least > 64<<10 || e.preferred < e.least || e.most < e.preferred || e.most%e.least != 0 && e.most != 1<<32-1:
		return fmt.Errorf("the export has impossible block sizes: %d at the least, %d preferred, %d at the most", e.least, e.preferred, e.most)
	}
	return nil
}
