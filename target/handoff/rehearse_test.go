// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"net/netip"
	"reflect"
	"testing"
)

// chain contains itself, and all that states are made of.
type chain struct {
	Next    *chain                  `cbor:"1,keyasint"`
	List    []chain                 `cbor:"2,keyasint"`
	ByName  map[string]chain        `cbor:"3,keyasint"`
	Address netip.Addr              `cbor:"4,keyasint"`
	Data    []byte                  `cbor:"5,keyasint"`
	Fixed   [3]uint32               `cbor:"6,keyasint"`
	hidden  map[string]chan<- error // not part of it
}

func TestRehearse(t *testing.T) {
	if err := Rehearse(chain{}, map[string][]chain{}, []byte{}); err != nil {
		t.Error(err)
	}
	if err := Rehearse(struct{ C chan int }{}); err == nil {
		t.Error("a channel was encoded")
	}
}

// TestFill finds something wherever a type's encoding is found out only when there
// is something to encode.
func TestFill(t *testing.T) {
	var c chain
	fill(reflect.ValueOf(&c).Elem(), 0)
	if c.Next == nil || len(c.List) != 1 || len(c.ByName) != 1 || len(c.Data) != 1 || c.hidden != nil {
		t.Errorf("%+v", c)
	}
	if c.Next != nil && len(c.Next.List) != 1 {
		t.Errorf("behind the pointer: %+v", *c.Next)
	}
}
