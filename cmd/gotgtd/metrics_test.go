// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/page"
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

// TestMetricsEnd: who asks nothing, and who does not take an answer, does not keep a process from its end, for which
// the next upgrade waits.
func TestMetricsEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	s := &metricsServer{
		page: page.New(page.Options{Status: func() control.Status { return control.Status{} }}),
		done: make(chan error, 1),
		http: &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done() // an answer that is not taken
		})},
	}
	go func() { s.done <- s.http.Serve(l) }()
	for _, said := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 30*metricsEnd) // the most that a process may take for its end
	defer cancel()
	if err := s.close(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("the end of the server: %v, %v", err, ctx.Err())
	}
}

// TestWebConfigGoesBad: whoever scrapes is refused when the web configuration can't be read any more, the log says
// why, and nothing is needed but to mend it.
func TestWebConfigGoesBad(t *testing.T) {
	dir := t.TempDir()
	web, socket, file := filepath.Join(dir, "web.yaml"), filepath.Join(dir, "metrics.sock"), filepath.Join(dir, "gotgtd.yaml")
	conf := fmt.Sprintf("metrics: {listen: 'unix:%s', web-config: %s}\ntargets:\n  - {name: 'iqn.2026-11.test:a', luns: [{lun: 1, backend: ram, size: 1MiB}]}\n", socket, web)
	const good = "basic_auth_users: {}\n"
	if err := errors.Join(os.WriteFile(web, []byte(good), 0o600), os.WriteFile(file, []byte(conf), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", file)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	wants := func(text string, status int) {
		t.Helper()
		if err := os.WriteFile(web, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get("http://gotgtd/metrics")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("with %q the answer is %s, want %d", text, resp.Status, status)
		}
	}
	wants(good, http.StatusOK)
	wants("nonsense: 1\n", http.StatusInternalServerError)
	d.waitFor(t, "mend the file that metrics.web-config names")
	wants(good, http.StatusOK)
}
