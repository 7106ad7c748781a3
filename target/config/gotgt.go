// SPDX-License-Identifier: Apache-2.0

package config

func parseGotgt(name string, data []byte) (*Config, Errors) { return &Config{}, nil }
