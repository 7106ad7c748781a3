// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxSecret is the longest CHAP secret in bytes.
const maxSecret = 255

// readSecret reads a CHAP secret from a file: all of it but one newline at the
// end. A file to which anyone but its owner has access is refused.
func readSecret(path string) (Secret, error) {
	// Without O_NONBLOCK, a FIFO in the file's place would hold up the start.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", cause(err, "can't open %q", path)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", cause(err, "can't read %q", path)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%q has mode %04o: others than its owner have access (chmod 600)", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+2))
	if err != nil {
		return "", cause(err, "can't read %q", path)
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	switch {
	case len(data) == 0:
		return "", fmt.Errorf("%q is empty", path)
	case hasMark(data):
		return "", fmt.Errorf("%q begins with a byte order mark, which would be a part of the secret: save it as UTF-8 without one", path)
	}
	return Secret(data), nil
}

// hasMark reports whether a text begins with the byte order mark of UTF-8 or UTF-16, as editors
// of Windows put it there.
func hasMark(text []byte) bool {
	return slices.ContainsFunc([]string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"}, func(mark string) bool { return bytes.HasPrefix(text, []byte(mark)) })
}

// cause says what could not be done and why, naming the path once.
func cause(err error, format string, args ...any) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
