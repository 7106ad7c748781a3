// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net"
	"testing"
)

// FuzzStream sends any bytes, before a login or after one: at worst that one
// connection ends.
func FuzzStream(f *testing.F) {
	for _, s := range scripts() {
		f.Add(false, s.bytes)
		f.Add(true, s.bytes[s.full:])
	}
	f.Add(true, encode(write10(7, 2, 0, 16, 512), make([]byte, 512)))
	f.Add(false, []byte("GET / HTTP/1.1\r\n\r\n"))
	t := new(testing.T)
	r := newRig(t, Limits{}, Auth{})
	f.Cleanup(r.close)
	// The bytes of a case may be a login, which is still being answered when the
	// next case logs in. An ISID that no seed has keeps it from reinstating the
	// session of that one.
	loginBytes := loginPDU()
	loginBytes[9] = 0xff
	f.Fuzz(func(t *testing.T, login bool, b []byte) {
		conn, err := net.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if login {
			if _, err := conn.Write(loginBytes); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readPDU(conn); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = conn.Write(b)
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
}
