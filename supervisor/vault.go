// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// VaultVariable is the environment variable in which a service manager that keeps sockets for
// the service (upgraded does) tells a process the number of its descriptor of the door to them.
const VaultVariable = "SUPERVISOR_VAULT_FD"

// vaultName is the name under which tableflip carries the door.
const vaultName = "vault"

// Vault is the door to where the service manager keeps descriptors, for vault.Open. It is nil if there is
// none: the manager has none, or a generation before this one did not know of it. It
// belongs to the Process, which hands it on to the successor.
func (p *Process) Vault() *os.File { return p.vault }

// takeVault takes up the door, and has it handed on.
func (p *Process) takeVault(sys system) (err error) {
	number := sys.getenv(VaultVariable)
	if err := sys.unsetenv(VaultVariable); err != nil {
		return err
	}
	if p.upg.HasParent() {
		// The variable is not for this process: the door is inherited.
		if p.vault, err = p.upg.File(vaultName); err != nil {
			return fmt.Errorf("can't take up the vault: %w", err)
		}
		return nil
	}
	if number == "" {
		return nil
	}
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 0 {
		return fmt.Errorf("can't take up the vault: %s is %q, and not a descriptor's number", VaultVariable, number)
	}
	unix.CloseOnExec(fd)
	p.vault = os.NewFile(uintptr(fd), vaultName)
	if err := p.upg.AddFile(vaultName, p.vault); err != nil {
		_ = p.vault.Close()
		return fmt.Errorf("can't take up the vault: %w", err)
	}
	return nil
}
