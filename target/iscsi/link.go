// SPDX-License-Identifier: Apache-2.0

package iscsi

import "net/netip"

func (c *conn) origin() netip.Prefix { return origin(c.remote.Addr()) }
