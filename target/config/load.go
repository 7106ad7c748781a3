// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFileSize is the largest configuration file in bytes.
const maxFileSize = 4 << 20

// Load reads the configuration file at path, fills in the defaults and
// validates the result. An error is an [Errors] with everything that is wrong.
func Load(path string) (*Config, error) { return LoadNumbered(path, nil) }

// LoadNumbered is [Load] with the numbers that were given before. Those that
// the configuration leaves open stay as they were.
func LoadNumbered(path string, known Numbers) (*Config, error) {
	return load(path, known, validation{})
}

// LoadToServe is LoadNumbered for a process that opens the backing stores next:
// what is wrong with these is no error here ([Error.Unavailable]).
func LoadToServe(path string, known Numbers) (*Config, error) {
	return load(path, known, validation{starting: true})
}

// LoadToPlan is LoadNumbered for what a running process would do with it.
func LoadToPlan(path string, known Numbers, late Late) (*Config, error) {
	return load(path, known, validation{late: late})
}

func load(path string, known Numbers, how validation) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{{Pos: Pos{File: path}, Err: err}}
	}
	return loadText(path, data, known, how)
}

// LoadText is [LoadToPlan] of a file whose text is data, whatever is in its
// place by now.
func LoadText(path string, data []byte, known Numbers, late Late) (*Config, error) {
	return loadText(path, data, known, validation{late: late})
}

func loadText(path string, data []byte, known Numbers, how validation) (*Config, error) {
	if len(data) > maxFileSize {
		return nil, Errors{{Pos: Pos{File: path}, Err: errTooLarge}}
	}
	cfg, errs := parse(path, data, known)
	cfg.noteReadable()
	errs = append(errs, cfg.validate(how).without(errs)...)
	if how.starting {
		errs = errs.available()
	}
	if len(errs) > 0 {
		return nil, errs.sorted(cfg.Files)
	}
	return cfg, nil
}

// available returns the errors but for those of backing stores that can't be opened.
func (l Errors) available() Errors {
	return slices.DeleteFunc(l, func(e *Error) bool { return e.Unavailable })
}

// noteReadable warns of secrets in files that others may read.
func (c *Config) noteReadable() {
	for path, p := range c.places {
		if !strings.HasSuffix(path, ".secret") {
			continue
		}
		if info, err := os.Stat(p.pos.File); err == nil && info.Mode().Perm()&0o077 != 0 {
			err := fmt.Errorf("has a secret in it, but mode %04o: others than its owner have access (chmod 600)", info.Mode().Perm())
			c.notes = append(c.notes, &Error{Pos: Pos{File: p.pos.File}, Err: err}) // the same for all: shown once
		}
	}
}

// Parse reads a configuration from memory and fills in the defaults, but does
// not validate it. name is the file's name, for messages and for what is
// relative to it; includes and secret files are read from the file system. The
// format is told by the extension, .yaml, .yml, .conf or .json, or else by the
// contents. An error is an [Errors].
func Parse(name string, data []byte) (*Config, error) {
	if len(data) > maxFileSize {
		return nil, Errors{{Pos: Pos{File: name}, Err: errTooLarge}}
	}
	cfg, errs := parse(name, data, nil)
	if len(errs) > 0 {
		return nil, errs.sorted(cfg.Files)
	}
	return cfg, nil
}

// parse reads a configuration of any format as far as it can.
func parse(name string, data []byte, known Numbers) (*Config, Errors) {
	var cfg *Config
	var errs Errors
	data = withoutMark(data)
	language := format(name, data)
	switch language {
	case formatTGT:
		cfg, errs = parseTGT(name, data, known)
	case formatGotgt:
		cfg, errs = parseGotgt(name, data)
	default:
		cfg, errs = parseYAMLConfig(name, data)
	}
	cfg.language = language
	cfg.setDefaults(known)
	return cfg, errs
}

// fileFormat is the language of a configuration file.
type fileFormat int

const (
	formatYAML fileFormat = iota
	formatTGT
	formatGotgt
)

// format tells the language of a file by its extension, or else by the first
// character that is not in a comment: "{" begins JSON and "<" a block of
// targets.conf, "include" and "default-driver" are directives of the latter.
func format(name string, data []byte) fileFormat {
	switch filepath.Ext(name) {
	case ".yaml", ".yml":
		return formatYAML
	case ".conf":
		return formatTGT
	case ".json":
		return formatGotgt
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		word := string(bytes.Fields(line)[0])
		switch {
		case line[0] == '{':
			return formatGotgt
		case line[0] == '<', word == "include", globalDirectives[word] != nil:
			return formatTGT
		}
		return formatYAML
	}
	return formatYAML
}

var errTooLarge = fmt.Errorf("is larger than %d bytes", maxFileSize)

// readFile reads a configuration file, one of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err, "can't open the configuration")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	switch {
	case err != nil:
		return nil, cause(err, "can't read the configuration")
	case len(data) > maxFileSize:
		return nil, errTooLarge
	}
	return withoutMark(data), nil
}

// byteOrderMark begins the files that some editors write.
const byteOrderMark = "\ufeff"

func withoutMark(data []byte) []byte { return bytes.TrimPrefix(data, []byte(byteOrderMark)) }

// directory is the absolute path of the directory that a file is in, which
// relative paths in the file start from.
func directory(name string) string {
	dir := filepath.Dir(name)
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
