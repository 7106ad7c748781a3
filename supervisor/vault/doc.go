// SPDX-License-Identifier: Apache-2.0

// Package vault is a place outside of a service's processes that keeps open descriptors for them,
// so that a socket outlives the process that served it. A supervisor has the [Vault], and each
// generation of the service a [Client].
//
// A client reaches the vault through its door, one end of a SOCK_SEQPACKET pair that the supervisor
// has made and that generations inherit, each from the one before it or from the supervisor. All of
// them have the same end, so there is one queue, in the order of the sendmsg(2) calls:
//
//   - What sendmsg(2) has returned for is in the queue, and stays there when the sender is killed. No
//     answer has to be waited for.
//   - The requests of a generation that has died are dealt with before those of the next one, with
//     nothing to be done about it. A List is a barrier as well.
//
// The descriptor is the right to use the vault. The door has no name in the file system, /proc opens no
// sockets, and pidfd_getfd(2) asks for as much as it takes to control the process itself. So
// only a process has it that the supervisor or a generation has given it to. The sender's PID
// in the kernel's credentials would say less: it names nobody any more when the sender is dead, and
// that is when it matters.
//
// # Protocol
//
// Numbers are little endian. A request is one message on the door:
//
//	0   1  what: 1 HELLO, 2 PUT, 3 DROP, 4 LIST
//	1   1  version of the protocol: 1
//	2   2  zero
//	4   4  tag, which the answer to LIST repeats
//	8   8  client: the cookie (SO_COOKIE) of the socket that came with its HELLO
//	16  8  id of the descriptor; of LIST: the position after which to go on, 0 at first
//	24  n  name, at most 255 bytes
//
// HELLO comes with an end of another SOCK_SEQPACKET pair, for answers, and PUT with the descriptor. id is
// the cookie of a socket; for anything else it is what the client chooses, with the bit [NotSocket]. A
// PUT takes the place of what is kept with the same id. DROP of an unknown id does nothing: the descriptor has hung up
// meanwhile. LIST asks for those of one name or, with an empty one, for all. An answer is one message on the
// client's own socket:
//
//	0   1  what: 1 WELCOME, 2 REFUSED, 3 PAGE
//	1   1  version of the protocol
//	2   2  of PAGE: 1 if there are more
//	4   4  tag of LIST
//	8   8  of WELCOME: how many descriptors the vault keeps at the most; of REFUSED: the id; of PAGE: the
//	       position to go on after
//	16     of REFUSED: the reason; of PAGE: for each descriptor its id (8), the length of its name (1)
//	       and the name; the descriptors come with the message, in the same order
//
// A LIST is answered by one PAGE of at most 250 descriptors, and the client asks again, so
// the vault never waits for a client. A client whose answers can't be sent, because
// it reads none, loses its socket, so that no refusal is lost unnoticed.
package vault
