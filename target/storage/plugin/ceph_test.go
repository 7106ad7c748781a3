// SPDX-License-Identifier: Apache-2.0

//go:build ceph

package plugin

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// There is no cluster here: the plug-in is built in, and says what it lacks.
func TestCeph(t *testing.T) {
	const name = "ceph-rbd"
	if err := Registered(name); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CEPH_CONF", filepath.Join(t.TempDir(), "ceph.conf"))
	for path, want := range map[string]string{
		"image":      "invalid device path string:image",
		"pool/image": `can't open backing store "ceph-rbd:pool/image": rados`,
	} {
		if _, err := Open(Options{Name: name, Options: storage.Options{Path: path}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opening %q: %v, want %q", path, err, want)
		}
	}
}
