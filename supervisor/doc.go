// SPDX-License-Identifier: Apache-2.0

// Package supervisor is what a daemon needs to be started, watched and
// replaced without its clients noticing.
//
// A daemon calls [Start] once. From the environment alone it learns how it was
// started: by systemd or upgraded (LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC),
// by its predecessor, or from a shell. Each running process of a daemon is one
// generation. [Process.Upgrade] starts the next one from the binary that is
// now at argv[0], and gives the daemon a socket to it over which the daemon
// hands over whatever it has:
//
//	old generation                         successor
//	--------------                         ---------
//	Upgrade: starts it  ------------------> Start
//	                                        reads its configuration, opens everything
//	callback runs       <--- "hello" ------ on Predecessor()
//	freezes, sends all  ---- "snapshot" --> rebuilds
//	                    <--- "prepared" ---
//	                    ---- "commit" ---->
//	callback returns nil <-- "taken" ------ serves
//	Upgrade returns nil <------------------ Ready
//	Exit: hooks run, process ends
//
// The words in quotation marks are the daemon's own; the package carries them
// and looks into none. Until the callback returns nil the old generation owns
// everything: on any error the successor is killed and reaped before Upgrade
// returns. From then on the successor owns everything, and is never killed.
//
// What is to outlive a generation that dies without a successor lies with the service manager: in
// the store of sd_notify(3) ([Process.Store]), or, where there is one, in its vault
// ([Process.Vault] and package vault).
package supervisor
