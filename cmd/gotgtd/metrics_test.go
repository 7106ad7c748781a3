// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/limit"
)

// TestMetricsStrangers: who connects to the metrics and speaks no TLS causes no more of the log than others may.
func TestMetricsStrangers(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir)
	web := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(web, []byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, file := filepath.Join(dir, "metrics.sock"), filepath.Join(dir, "gotgtd.yaml")
	conf := fmt.Sprintf("metrics: {listen: 'unix:%s', web-config: %s}\ntargets:\n  - {name: 'iqn.2026-11.test:a', luns: [{lun: 1, backend: ram, size: 1MiB}]}\n", socket, web)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", file)
	const strangers = 10 * limit.Lines
	for range strangers {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	var log []string
	for line := range d.lines {
		if strings.Contains(line, "TLS handshake error") {
			log = append(log, line)
		}
	}
	if n := len(log); n == 0 || n > strangers/2 || !strings.Contains(log[0], "a connection for metrics has failed") {
		t.Errorf("%d lines of %d strangers:\n%s", n, strangers, strings.Join(log, "\n"))
	}
}

// writeCertificate writes cert.pem and key.pem, which are those of package httptest.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
