// SPDX-License-Identifier: Apache-2.0

package config

// These are the YAML file's own types, for what the program runs on in another form: [Config].
// Other sections are of the engine's types. Their fields and their order are what
// docs/configuration.md describes.

type fileConfig struct {
	Include      []string          `yaml:"include,omitempty"`
	IgnoreErrors bool              `yaml:"ignore-errors,omitempty"`
	PortalGroups []filePortalGroup `yaml:"portal-groups,omitempty"`
	Discovery    *fileAuth         `yaml:"discovery,omitempty"`
	Limits       *Limits           `yaml:"limits,omitempty"`
	Metrics      *Metrics          `yaml:"metrics,omitempty"`
	Accounts     []fileShared      `yaml:"accounts,omitempty"`
	Targets      []fileTarget      `yaml:"targets,omitempty"`
}

// fileIncluded is what an included file may have.
type fileIncluded struct {
	Include  []string     `yaml:"include,omitempty"`
	Accounts []fileShared `yaml:"accounts,omitempty"`
	Targets  []fileTarget `yaml:"targets,omitempty"`
}

type filePortalGroup struct {
	Tag     uint16       `yaml:"tag"`
	Portals []filePortal `yaml:"portals"`
}

type filePortal struct {
	Address  string   `yaml:"address,omitempty"`
	Socket   string   `yaml:"socket,omitempty"`
	Announce []string `yaml:"announce,omitempty"`
}

type fileAuth struct {
	Users      []fileAccount `yaml:"users,omitempty"`
	Outgoing   *fileAccount  `yaml:"outgoing,omitempty"`
	Algorithms []string      `yaml:"algorithms,omitempty"`
}

type fileAccount struct {
	Account    string      `yaml:"account,omitempty"`
	User       string      `yaml:"user,omitempty"`
	Secret     *fileSecret `yaml:"secret,omitempty"`
	SecretFile string      `yaml:"secret-file,omitempty"`
	Initiators []string    `yaml:"initiators,omitempty"`
}

// fileShared is an account that targets refer to by name.
type fileShared struct {
	Name       string      `yaml:"name,omitempty"`
	User       string      `yaml:"user,omitempty"`
	Secret     *fileSecret `yaml:"secret,omitempty"`
	SecretFile string      `yaml:"secret-file,omitempty"`
	Initiators []string    `yaml:"initiators,omitempty"`
}

type fileTarget struct {
	Target `yaml:",inline"`
	Access *fileAccess `yaml:"access,omitempty"`
	Auth   *fileAuth   `yaml:"auth,omitempty"`
	LUNs   []fileLUN   `yaml:"luns,omitempty"`
}

type fileAccess struct {
	Addresses  []string `yaml:"addresses,omitempty"`
	Initiators []string `yaml:"initiators,omitempty"`
	Accounts   []string `yaml:"accounts,omitempty"`
	Nobody     bool     `yaml:"nobody,omitempty"`
}

type fileLUN struct {
	Number *uint16 `yaml:"lun"`
	LUN    `yaml:",inline"`
	Access *fileAccess `yaml:"access,omitempty"`
}
