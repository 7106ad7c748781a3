// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/gotgtd/gotgtd/target/storage"
)

// textStore holds a text that can only be read. A logical unit asks for nothing beyond
// these methods; what else a store can do it shows by more of them, see [storage.Can].
type textStore struct{ *strings.Reader }

func (s textStore) Info() storage.Info {
	return storage.Info{Type: "text", Size: s.Size(), ReadOnly: true}
}

// ReadAt never reads less than it is asked for without an error. It waits for nothing, so the
// context is of no use.
func (s textStore) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := s.Reader.ReadAt(p, off)
	if n < len(p) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (textStore) WriteAt(context.Context, []byte, int64) (int, error) {
	return 0, fmt.Errorf("a text can't be written")
}
func (textStore) Flush(context.Context) error { return nil }
func (textStore) Close() error                { return nil }

// A store of a program's own.
func ExampleStore() {
	var s storage.Store = textStore{strings.NewReader(strings.Repeat("hello ", 100))}
	b := make([]byte, 5)
	_, err := s.ReadAt(context.Background(), b, 6)
	fmt.Printf("%s %v\n", b, err)
	_, err = s.ReadAt(context.Background(), b, 598)
	fmt.Println(err)
	fmt.Println("frees space:", storage.Can(s).Discarder != nil)
	// Output:
	// hello <nil>
	// unexpected EOF
	// frees space: false
}

// A driver makes stores for configurations: backend "text:WORD" is a disk of so many bytes
// with that word all over it. Programs register theirs in an init function, and
// package storagetest has the tests that a store should pass.
func ExampleRegister() {
	storage.Register("text", storage.Driver{
		Needs: storage.SettingName | storage.SettingSize,
		Open: func(_ context.Context, word string, o storage.Options) (storage.Store, error) {
			if o.Size < int64(len(word)) {
				return nil, &storage.Error{Op: "open", Path: word, Err: fmt.Errorf("%d bytes are too few for it", o.Size)}
			}
			return textStore{strings.NewReader(strings.Repeat(word, int(o.Size)/len(word)))}, nil
		},
	})
	s, err := storage.OpenBackend(context.Background(), "text:echo", storage.Options{Size: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	fmt.Println(s.Info().Type, s.Info().Size)
	_, err = storage.OpenBackend(context.Background(), "text:echo", storage.Options{Size: 2})
	fmt.Println(err)
	// Output:
	// text 4096
	// can't open backing store "echo": 2 bytes are too few for it
}

// A file, made if it is missing. It is locked: nobody else serves it meanwhile.
func ExampleOpenFile() {
	_, err := storage.OpenFile(storage.Options{Path: "/nowhere/disk", Size: 1 << 20, Create: true})
	fmt.Println(err)
	// Output:
	// can't open backing store "/nowhere/disk": its folder "/nowhere" is missing, and only a file is made: make the folder first
}
