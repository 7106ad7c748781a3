// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

// secretsFolder is beside the configuration file, and has the secrets that
// commands were given.
const secretsFolder = "secrets"

func userCommand() *cobra.Command {
	c := groupCommand("user", "Add, change, remove and list CHAP accounts")
	c.AddCommand(
		userSetCommand("add", "Add an account", true),
		userSetCommand("set", "Give an account another secret", false),
		userRemoveCommand(), userListCommand())
	return c
}

// userList is an account as user list prints it.
type userList struct {
	Target string `json:"target,omitempty"` // empty: discovery
	User   string `json:"user"`
	Use    string `json:"use"`
}

// What an account is for: an initiator proves with it who it is, or the target does.
const (
	useIncoming = "incoming"
	useOutgoing = "outgoing"
)

func userListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list [TARGET]", Short: "List the CHAP accounts", Args: cobra.MaximumNArgs(1),
		Long: "List prints the accounts of the targets and of discovery that the daemon has: incoming ones, with which initiators prove who they are, and outgoing ones, with which the target does. Secrets are not printed.",
	}
	return listCommand(c, "TARGET\tUSER\tUSE", func(st *control.Status, args []string) (any, []string, error) {
		targets, err := chosen(st, args)
		list, rows := []userList{}, []string(nil)
		add := func(target string, users []string, outgoing string) {
			for _, u := range users {
				list = append(list, userList{target, u, useIncoming})
			}
			if outgoing != "" {
				list = append(list, userList{target, outgoing, useOutgoing})
			}
		}
		if len(args) == 0 {
			add("", st.DiscoveryAccounts, st.DiscoveryOutAccount)
		}
		for _, t := range targets {
			add(t.Name, t.Accounts, t.OutAccount)
		}
		for _, u := range list {
			rows = append(rows, cmp.Or(u.Target, "(discovery)")+"\t"+printable(u.User, "-")+"\t"+u.Use)
		}
		return list, rows, err
	})
}

// userFlags say which account is meant.
type userFlags struct{ discovery, outgoing *bool }

func newUserFlags(c *cobra.Command) userFlags {
	return userFlags{
		discovery: c.Flags().Bool("discovery", false, "an account for discovery, instead of for a target"),
		outgoing:  c.Flags().Bool("outgoing", false, "the account with which the target proves itself to initiators"),
	}
}

// account returns the target, empty for discovery, and the user that the arguments name.
func (f userFlags) account(args []string) (target, user string, err error) {
	switch {
	case *f.discovery && len(args) == 1:
		return "", args[0], nil
	case !*f.discovery && len(args) == 2:
		return args[0], args[1], nil
	}
	return "", "", errors.New("name TARGET USER, or --discovery USER")
}

func userSetCommand(verb, short string, fresh bool) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " {TARGET | --discovery} USER", Short: short,
		Long: short + ". The secret is read from standard input, and written to a file that only the daemon's user can read, in the folder " +
			secretsFolder + " beside the configuration; or it stays in the file that --secret-file names.",
		Args: cobra.RangeArgs(1, 2),
	}
	r := newChanger(c)
	flags := newUserFlags(c)
	file := c.Flags().String("secret-file", "", "the `FILE` that has the secret in it, and keeps it")
	c.RunE = func(c *cobra.Command, args []string) error {
		target, user, err := flags.account(args)
		if err != nil {
			return err
		}
		secret, err := r.secret(c, *file, target, user)
		if err != nil {
			return err
		}
		return r.setUser(c, target, user, secret, fresh, *flags.outgoing)
	}
	return c
}

// secret is a CHAP secret on its way into a file.
type secret struct {
	path string
	made bool // by this command
}

// secret reads the secret and puts it into a file of its own, unless it is in one.
func (r *changer) secret(c *cobra.Command, file, target, user string) (*secret, error) {
	if file != "" {
		path, err := filepath.Abs(file)
		return &secret{path: path}, err
	}
	text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
	if err != nil {
		return nil, fmt.Errorf("can't read the secret from standard input: %w", err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 || bytes.ContainsAny(text, "\n\x00") {
		return nil, errors.New("standard input must be the secret, one line")
	}
	st, err := client(c).Status(c.Context())
	if err != nil {
		return nil, err
	}
	if st.Config == "" {
		return nil, errNoFile
	}
	uid, gid := ownerOf(fmt.Sprintf("/proc/%d", st.PID))
	path, err := writeSecret(st.Config, target, user, text, uid, gid)
	return &secret{path, true}, err
}

// setUser changes the account. The file with the new secret goes if nothing
// came of that; that with the old one goes if it did. A configuration that names a file which is gone would
// keep the daemon from starting.
func (r *changer) setUser(c *cobra.Command, target, user string, s *secret, fresh, outgoing bool) error {
	var old string
	err := r.edit(c, func(e *config.Editor) (err error) {
		old, err = e.SetUser(target, user, s.path, fresh, outgoing)
		return err
	})
	if errors.Is(err, errNewText) {
		return err
	}
	if s.made && (err != nil || *r.dryRun) {
		_ = os.Remove(s.path)
		return err
	}
	if err == nil && !*r.dryRun && old != s.path {
		removeSecret(c, old)
	}
	return err
}

func userRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove {TARGET | --discovery} USER", Short: "Remove an account", Args: cobra.RangeArgs(1, 2)}
	r := newChanger(c)
	flags := newUserFlags(c)
	last := c.Flags().Bool("last", false, "remove the last account, though nobody needs a secret then")
	c.RunE = func(c *cobra.Command, args []string) error {
		target, user, err := flags.account(args)
		if err != nil {
			return err
		}
		var old string
		err = r.edit(c, func(e *config.Editor) (err error) {
			old, err = e.RemoveUser(target, user, *flags.outgoing, *last)
			return err
		})
		if err == nil && !*r.dryRun {
			removeSecret(c, old)
		}
		return err
	}
	return c
}

// ownerOf returns who owns a file, this process's own user if it can't tell.
func ownerOf(path string) (uid, gid int) {
	if info, err := os.Stat(path); err == nil && os.Geteuid() == 0 {
		st := info.Sys().(*syscall.Stat_t)
		return int(st.Uid), int(st.Gid)
	}
	return os.Geteuid(), os.Getegid()
}

// writeSecret writes a secret to a new file in the folder for secrets, which
// it makes, and returns its path.
func writeSecret(configFile, target, user string, text []byte, uid, gid int) (string, error) {
	dir := filepath.Join(filepath.Dir(configFile), secretsFolder)
	if err := os.Mkdir(dir, 0o700); err == nil {
		if uid != os.Geteuid() {
			err = os.Chown(dir, uid, gid)
		}
		err = errors.Join(err, replace.SyncFolder(filepath.Dir(dir)))
		if err != nil {
			return "", err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("can't make a folder for secrets: %w", err)
	}
	if err := replace.Folder(dir, uid); err != nil {
		return "", fmt.Errorf("can't keep secrets there: %w", err)
	}
	if target == "" {
		target = "discovery"
	}
	name := url.PathEscape(target + "." + user)
	name = name[:min(len(name), 180)] + "." + rand.Text()[:8] + secretSuffix
	path := filepath.Join(dir, name)
	return path, replace.Write(path, text, 0o600, uid, gid)
}

const secretSuffix = ".secret"

// removeSecret removes the file that an account had its secret in, if writeSecret has made it and
// no other account has it: without that file the daemon would not start.
func removeSecret(c *cobra.Command, path string) {
	st, err := client(c).Status(c.Context())
	if err != nil || path == "" {
		return
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(st.Config), path)
	}
	conf, err := config.LoadToServe(st.Config, nil)
	if err != nil || filepath.Base(filepath.Dir(path)) != secretsFolder || !strings.HasSuffix(path, secretSuffix) {
		return
	}
	for _, in := range secretsOf(conf) {
		if sameFile(in.account.SecretFile, path) {
			return
		}
	}
	_ = os.Remove(path)
}
