// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// supportAnswer is how long the daemon, and every other program, may take for one answer.
	supportAnswer = 10 * time.Second
	// maxMember is the most of one member, in bytes: its end counts more than its beginning.
	maxMember = 8 << 20
)

// A supportMember is a file in the archive, and what it has to say. What collect returns with an error is kept.
type supportMember struct {
	name    string
	about   string
	collect func(context.Context) (string, error)
}

func supportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "support [-o FILE]",
		Short: "Write an archive for a bug report, without secrets",
		Long: `Support writes a tar archive with what a bug report needs: versions, the configuration without its secrets, the plan, status, sessions,
metrics, the goroutines and the recent log of the daemon, and what the kernel knows of it. It does what is possible when the daemon hangs
or is not there; contents.txt in the archive says what is missing, and why. There are names and addresses of initiators, and paths, in it: read it before
you pass it on.`,
		Args: cobra.NoArgs,
	}
	out := c.Flags().StringP("output", "o", "", "write to this `FILE`, - for standard output; without it, gotgtd-support-HOST-TIME.tar.gz here")
	file := c.Flags().String("config", "", "the configuration `FILE`, if the daemon is not there to tell; by default "+defaultConfig)
	c.RunE = func(c *cobra.Command, _ []string) error {
		name := supportName(time.Now())
		s := newSupport(c, *file)
		if *out == "-" {
			if isTerminal(c.OutOrStdout()) {
				return usagef("an archive is nothing to look at: give -o FILE")
			}
			_, err := s.write(c.Context(), c.OutOrStdout(), name)
			return err
		}
		path := *out
		if path == "" {
			path = name + ".tar.gz"
		}
		missing, err := s.writeFile(c.Context(), path, name)
		if err != nil {
			return err
		}
		for _, m := range missing {
			fmt.Fprintln(c.ErrOrStderr(), "missing:", m)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s has everything but secrets: names of initiators, addresses and paths are in it. Read it before you pass it on.\n", path)
		return err
	}
	return c
}

// supportName is what an archive and the folder in it are called.
func supportName(at time.Time) string {
	host, err := os.Hostname()
	if err != nil || strings.ContainsRune(host, '/') {
		host = "host"
	}
	return fmt.Sprintf("gotgtd-support-%s-%s", host, at.UTC().Format("20060102-150405"))
}

// writeFile writes the archive to a new file, which only its owner can read.
func (s *support) writeFile(ctx context.Context, path, name string) (missing []string, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already, and is not written over: name another with -o (%w)", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("can't make the archive: %w", err)
	}
	missing, err = s.write(ctx, f, name)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("can't write the archive %s: %w", path, err)
	}
	return missing, nil
}

// write writes the archive, and returns what is missing in it.
func (s *support) write(ctx context.Context, w io.Writer, name string) (missing []string, err error) {
	contents := "What is in this archive. Secrets are not: they are left out, and replaced where they would be in other text.\n\n"
	type member struct{ name, text string }
	var collected []member
	for _, m := range s.members() {
		collecting, cancel := context.WithTimeout(ctx, s.answer)
		text, err := m.collect(collecting)
		cancel()
		contents += fmt.Sprintf("%-16s %s\n", m.name, m.about)
		if err != nil {
			why := strings.ReplaceAll(err.Error(), "\n", "; ")
			contents += fmt.Sprintf("%-16s MISSING, or not whole: %s\n", "", why)
			missing = append(missing, m.name+": "+why)
		}
		if text != "" {
			collected = append(collected, member{m.name, text})
		}
	}
	// Only now all secrets are known.
	for i := range missing {
		missing[i] = s.secrets.hide(missing[i])
	}
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	for _, m := range append([]member{{"contents.txt", contents}}, collected...) {
		text := s.secrets.hide(m.text)
		if len(text) > maxMember {
			text = "[the beginning is left out]\n" + text[len(text)-maxMember:]
		}
		h := &tar.Header{Name: filepath.Join(name, m.name), Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
		if err := archive.WriteHeader(h); err != nil {
			return missing, err
		}
		if _, err := io.WriteString(archive, text); err != nil {
			return missing, err
		}
	}
	return missing, errors.Join(archive.Close(), zip.Close())
}
