// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

func configCommand() *cobra.Command {
	c := groupCommand("config", "Print, edit and convert the configuration")
	c.AddCommand(configDumpCommand(), configEditCommand(), configConvertCommand())
	return c
}

func configDumpCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "dump", Short: "Print what the daemon serves, as YAML",
		Long: "Dump prints the configuration that the daemon runs on, whatever its file says by now, with all TIDs, LUNs and identities.", Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	secrets := c.Flags().Bool("secrets", false, "with the secrets that stand in the configuration itself")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := client(c).Config(c.Context(), *secrets)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), conf)
		}
		_, err = io.WriteString(c.OutOrStdout(), conf.Config)
		return err
	}
	return c
}

func configEditCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "edit", Short: "Edit the daemon's configuration file, and reload it",
		Long: "Edit runs $VISUAL, $EDITOR or vi on a copy of the daemon's configuration file, checks it, shows the plan and reloads it. After an error it offers to go on editing. Without a change nothing happens.",
		Args: cobra.NoArgs,
	}
	r := newChanger(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ch, err := r.begin(c)
		if err != nil {
			return err
		}
		defer ch.file.Close()
		dir, err := os.MkdirTemp("", "gotgtd-edit")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		return r.editAgain(c, ch, filepath.Join(dir, filepath.Base(ch.file.Path)))
	}
	return c
}

// editAgain runs the editor on a copy until the change is made or given up.
func (r *changer) editAgain(c *cobra.Command, ch *change, scratch string) error {
	if err := os.WriteFile(scratch, ch.file.Text, 0o600); err != nil {
		return err
	}
	answers := bufio.NewReader(c.InOrStdin())
	for {
		if err := runEditor(c, scratch); err != nil {
			return fmt.Errorf("the editor failed, nothing was changed: %w", err)
		}
		text, err := os.ReadFile(scratch)
		if err != nil {
			return err
		}
		if string(text) == string(ch.file.Text) {
			fmt.Fprintln(c.ErrOrStderr(), "not edited, nothing was changed")
			return nil
		}
		ch.text = text
		if err = notEmpty(text); err == nil {
			err = r.finish(c, ch)
		}
		if err == nil || errors.Is(err, errNewText) {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "%v\nEdit again? [Y/n] ", err)
		answer, readErr := answers.ReadString('\n')
		if readErr != nil || strings.HasPrefix(strings.ToLower(answer), "n") {
			fmt.Fprintln(c.ErrOrStderr(), "nothing was changed")
			return errReported{exitStatus(errRun{err})}
		}
	}
}

// runEditor runs the user's editor.
func runEditor(c *cobra.Command, path string) error {
	editor := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if v := os.Getenv(name); v != "" {
			editor = v
		}
	}
	e := exec.CommandContext(c.Context(), "sh", "-c", editor+` "$1"`, "sh", path)
	e.Stdin, e.Stdout, e.Stderr = os.Stdin, os.Stdout, os.Stderr
	return e.Run()
}

func configConvertCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "convert [FILE] [-o OUT]", Short: "Make a YAML configuration of one in any format",
		Long: "Convert writes a configuration, tgt's targets.conf or gotgt's JSON among them, as YAML with the same numbers and identities. Its secrets go into files that only their owner can read, in the folder " +
			secretsFolder + " beside OUT. Without FILE it is what the daemon serves.",
		Args: cobra.MaximumNArgs(1),
	}
	out := c.Flags().StringP("output", "o", "", "write to the file `OUT`, which must not be there yet, instead of standard output")
	c.RunE = func(c *cobra.Command, args []string) error {
		conf, err := convertible(c, args)
		if err != nil {
			return err
		}
		return convert(c.OutOrStdout(), conf, *out)
	}
	return c
}

// convertible is the configuration that the arguments name, or the daemon's.
// A file that the daemon serves keeps the numbers that it has there.
func convertible(c *cobra.Command, args []string) (*config.Config, error) {
	d := client(c)
	if len(args) == 0 {
		return runningConfig(c.Context(), d)
	}
	var known config.Numbers
	var late config.Late
	if st, err := d.Status(c.Context()); err == nil && sameFile(st.Config, args[0]) {
		running, err := d.Running(c.Context())
		if err != nil {
			return nil, err
		}
		known, late = running.Numbers(), running.NotOpen
	}
	return config.LoadToPlan(args[0], known, late)
}

// runningConfig is the configuration that the daemon runs on.
func runningConfig(ctx context.Context, d *control.Client) (*config.Config, error) {
	running, err := d.Config(ctx, true)
	if err != nil {
		return nil, err
	}
	now, err := d.Running(ctx)
	if err != nil {
		return nil, err
	}
	return config.LoadText("running.yaml", []byte(running.Config), nil, now.NotOpen)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// convert writes a configuration as YAML.
func convert(w io.Writer, conf *config.Config, out string) (err error) {
	var made []string
	defer func() {
		for _, path := range made {
			if err != nil {
				_ = os.Remove(path)
			}
		}
	}()
	abs, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	for _, in := range secretsOf(conf) {
		if in.account.SecretFile != "" {
			continue
		}
		if out == "" {
			return errors.New("there are secrets in this configuration, which go into files beside the new one: name that with -o OUT")
		}
		in.account.SecretFile, err = writeSecret(abs, in.target, in.account.User, []byte(in.account.Secret), os.Geteuid(), os.Getegid())
		if err != nil {
			return err
		}
		made = append(made, in.account.SecretFile)
	}
	text, err := conf.YAML(false)
	if err != nil {
		return err
	}
	if out == "" {
		_, err = w.Write(text)
		return err
	}
	if ext := filepath.Ext(out); ext != ".yaml" && ext != ".yml" {
		return fmt.Errorf("%s must end in .yaml, or it would be read as another format", out)
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is not written over: name another, or remove it (%w)", out, err)
	}
	if err != nil {
		return fmt.Errorf("can't make the new configuration: %w", err)
	}
	made = append(made, out)
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close(), replace.SyncFolder(filepath.Dir(out)))
}

// placedAccount is an account, and the target that it belongs to.
type placedAccount struct {
	target  string // empty: discovery
	account *config.Account
}

// secretsOf lists every account of a configuration, a shared one once.
func secretsOf(conf *config.Config) []placedAccount {
	var list []placedAccount
	for i := range conf.Accounts {
		list = append(list, placedAccount{"accounts", &conf.Accounts[i].Account})
	}
	add := func(target string, a *config.Auth) {
		for i := range a.Users {
			if a.Users[i].Shared == "" {
				list = append(list, placedAccount{target, &a.Users[i]})
			}
		}
		if a.Outgoing != nil {
			list = append(list, placedAccount{target, a.Outgoing})
		}
	}
	add("", &conf.Discovery)
	for i := range conf.Targets {
		add(conf.Targets[i].Name, &conf.Targets[i].Auth)
	}
	return list
}
