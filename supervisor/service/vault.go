// SPDX-License-Identifier: Apache-2.0

package service

import (
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/vault"
)

// spareFiles are descriptors that the supervisor has for itself beside the vault: sockets, requests, and
// twice what is stored, which is duplicated when the supervisor is replaced.
func (c *Config) spareFiles() int { return 2*maxSockets + 2*c.MaxStored + 256 }

// maxVault is what the vault may keep: what it is set to, and no more than the process can have open.
func (s *Service) maxVault() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > uint64(s.cfg.MaxVault+s.cfg.spareFiles()) {
		return s.cfg.MaxVault
	}
	most := max(int(limit.Cur)-s.cfg.spareFiles(), 0)
	s.log.Warn("the vault keeps less than it may: the process can have no more open", "descriptors", most, "vault-max", s.cfg.MaxVault, "RLIMIT_NOFILE", limit.Cur)
	return most
}

// openVault makes the vault, or takes up the one that the supervisor before has left.
func (s *Service) openVault(saved *vault.Saved) (err error) {
	if s.cfg.MaxVault < 0 {
		return nil
	}
	o := vault.Options{Max: s.maxVault(), Refused: func(name string, err error) {
		s.complainf("the vault has refused a request", "name", name, "error", err)
	}}
	if saved == nil {
		s.vault, err = vault.New(o)
		return err
	}
	if s.vault, err = vault.Resume(o, saved); s.vault != nil && err != nil {
		s.log.Warn("descriptors lost from the vault", "error", err)
		err = nil
	}
	return err
}

// discardVault hangs up what a service that has been stopped has left: nobody is to go on with it,
// and peers would wait for an answer.
func (s *Service) discardVault() {
	if s.vault == nil {
		return
	}
	if n := s.vault.Discard(); n > 0 {
		s.log.Info("descriptors of the vault closed: the service has been stopped", "descriptors", n)
	}
}

// VaultInfo describes the vault.
type VaultInfo struct {
	Held    int            `json:"held"`    // descriptors
	Max     int            `json:"max"`     // how many there may be
	Names   map[string]int `json:"names"`   // descriptors by name
	Refused int            `json:"refused"` // since the supervisor was started or has replaced itself
}

func (s *Service) vaultInfo() *VaultInfo {
	if s.vault == nil {
		return nil
	}
	c := s.vault.Counts()
	return &VaultInfo{c.Held, c.Max, c.Names, c.Refused}
}
