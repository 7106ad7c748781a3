// SPDX-License-Identifier: Apache-2.0

// Command upgraded supervises one service: see upgraded(8).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gotgtd/gotgtd/internal/logging"
	"github.com/gotgtd/gotgtd/supervisor/service"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == service.LaunchVerb {
		if err := service.Launch(os.Args[3:]); err != nil {
			os.Exit(127)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "upgraded:", err)
		os.Exit(1)
	}
}

// defaultControl is where systemd/gotgtd.service has the control socket.
const defaultControl = "/run/gotgtd/upgraded.sock"

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "upgraded",
		Short:         "Supervise a service whose processes are replaced while it serves",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	control := root.PersistentFlags().String("control", defaultControl, "the control `SOCKET`")
	root.AddCommand(runCommand(control))
	client := func() service.Client { return service.Client{Control: *control} }
	root.AddCommand(
		verbCommand("reload", "Replace the service by its next generation", func(ctx context.Context) (service.Result, error) {
			return client().Reload(ctx)
		}),
		verbCommand("status", "Show how the service stands", func(ctx context.Context) (service.Result, error) {
			return client().Status(ctx)
		}),
		verbCommand("stop", "Stop the service; its sockets stay open", func(ctx context.Context) (service.Result, error) {
			return client().Stop(ctx)
		}),
		verbCommand("restart", "Stop the service and start it", func(ctx context.Context) (service.Result, error) {
			return client().Restart(ctx)
		}),
		verbCommand("reexec", "Replace the supervisor's own program", func(ctx context.Context) (service.Result, error) {
			return client().Reexec(ctx)
		}),
	)
	return root
}

// gcPercent makes the collector run from 1 MiB on instead of from 4: a
// supervisor has next to no garbage, and should have next to no memory.
const gcPercent = 25

func runCommand(control *string) *cobra.Command {
	cfg := service.Config{Version: versionText()}
	var listen []string
	var strategy, readiness, format string
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG]...",
		Short: "Run a service under supervision",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Command, cfg.Control = args, *control
			cfg.Strategy, cfg.Readiness = service.Strategy(strategy), service.Readiness(readiness)
			for _, text := range listen {
				l, err := service.ParseListen(text)
				if err != nil {
					return err
				}
				cfg.Listen = append(cfg.Listen, l)
			}
			log, err := logging.New("upgraded", format, slog.LevelInfo)
			if err != nil {
				return fmt.Errorf("--log-format %w", err)
			}
			cfg.Log = log
			debug.SetGCPercent(gcPercent)
			return service.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&listen, "listen", nil, "hold a socket for the service: `NAME=ADDR`, ADDR being HOST:PORT, /PATH or @ABSTRACT")
	f.StringVar(&strategy, "strategy", string(service.Handoff), "how a reload replaces the service: handoff, overlap or restart")
	f.StringVar(&readiness, "ready", string(service.ReadyByNotify), "how a start is known to be done: notify (READY=1) or exec")
	f.DurationVar(&cfg.ReadyTimeout, "ready-timeout", service.DefaultReadyTimeout, "time for a start and for a reload")
	f.DurationVar(&cfg.StopTimeout, "stop-timeout", service.DefaultStopTimeout, "time from SIGTERM to SIGKILL")
	f.DurationVar(&cfg.RestartDelay, "restart-delay", service.DefaultRestartDelay, "delay of the second restart; doubles up to 5s")
	f.IntVar(&cfg.MaxStored, "fdstore-max", service.DefaultMaxStored, "bound of the descriptor store; -1 for no store")
	f.IntVar(&cfg.MaxVault, "vault-max", service.DefaultMaxVault, "bound of the vault, which keeps the service's connections over its death; -1 for no vault")
	f.DurationVar(&cfg.Watchdog, "watchdog", 0, "time without WATCHDOG=1 after which the service is restarted; 0 for never")
	f.StringVar(&cfg.Metrics, "metrics-listen", "", "serve metrics to Prometheus at `HOST:PORT`; without it GET /metrics of the control socket has them")
	f.StringVar(&format, "log-format", logging.Auto, "`FORMAT` of the log on standard error: text, json, or auto, which is text, or fields in systemd's journal if it leads there")
	return cmd
}

// verbCommand is a command that asks the running supervisor for something.
func verbCommand(name, short string, do func(context.Context) (service.Result, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := do(cmd.Context())
			if asJSON {
				if err != nil && result.Error == "" {
					result.Error = err.Error()
				}
				if jsonErr := printJSON(cmd.OutOrStdout(), result); jsonErr != nil {
					return jsonErr
				}
			} else if err == nil {
				if err := result.Status.Print(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printJSON(w io.Writer, result service.Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}

// version is set by the linker in a build by make.
var version string

// versionText is version or, in a build by the Go tool alone, what that has
// noted in the binary.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
