// SPDX-License-Identifier: Apache-2.0

package browser

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	user     = "admin"
	password = "open sesame"
	hash     = "$2a$04$as7dBu7LwvsioOzDTaKBmOq.mjIKq/R3Db2rC8QlKLvUtqVuqDs66" // bcrypt of password
)

// writeWebConfig asks for TLS and a password.
func writeWebConfig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, own, own, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "web.yaml")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(config, fmt.Appendf(nil, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {%s: %q}\n", user, hash), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestGuarded: with TLS, a password and HTTP/2, nothing of the page is for others, a stream outlives the times that the server has for
// requests, and the browser goes on through an upgrade.
func TestGuarded(t *testing.T) {
	d := startGuarded(t, small(t), writeWebConfig(t))
	at := strings.TrimPrefix(d.page, "http://")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"", "events", "page.js", "metrics"} {
		resp, err := client.Get("https://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("/%s without the password: %s", path, resp.Status)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, password)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Errorf("the stream is %s, not HTTP/2", resp.Proto)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	const events = 7 // 12 s: the server's times are 10 s
	n := 0
	for n < events && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			n++
		}
	}
	if n < events {
		t.Errorf("the stream ends after %d events: %v", n, lines.Err())
	}
	cancel()

	b := open(t, "https://"+user+":"+strings.ReplaceAll(password, " ", "%20")+"@"+at)
	b.live()
	value[bool](b, "window.marker = true")
	d.upgrade(t)
	upgraded := time.Now()
	b.waitFor("document.getElementById('fact-generation').textContent === '2' && window.marker")
	t.Logf("the page has the next generation after %v", time.Since(upgraded).Round(time.Millisecond))
}
