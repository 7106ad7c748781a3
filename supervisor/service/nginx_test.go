// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// nginxConfig has everything that nginx writes in one directory.
const nginxConfig = `worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen unix:%[1]s/socket;
		location / { return 200 "%[2]s"; }
	}
}
`

// nginx knows neither LISTEN_FDS nor NOTIFY_SOCKET. It takes a socket by its
// own variable, and the supervisor holds that socket while nginx is replaced.
func TestNginx(t *testing.T) {
	for _, strategy := range []Strategy{Restart, Overlap} {
		t.Run(string(strategy), func(t *testing.T) {
			s := newSupervised(t, func(c *Config) { c.Strategy, c.Readiness = strategy, ReadyByExec })
			config := filepath.Join(s.dir, "nginx.conf")
			s.cfg.Command = []string{"sh", "-c",
				`NGINX="3;" exec nginx -e "$0.log" -c "$0" -g "daemon off;"`, config}
			configure := func(answer string) {
				if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, s.dir, answer), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			configure("first")
			s.run()
			s.untilServing()
			s.until("nginx", func(Status) bool { return s.get(t) == "first" })
			configure("second")
			s.reload()
			s.until("the new nginx", func(st Status) bool { return len(st.Retiring) == 0 && s.get(t) == "second" })
		})
	}
}

// get asks nginx, and fails the test if the connection is refused.
func (s *supervised) get(t *testing.T) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "socket"))
		if err != nil {
			t.Errorf("nginx's socket: %v", err)
		}
		return conn, err
	}}
	req, err := http.NewRequestWithContext(s.context(), http.MethodGet, "http://nginx/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
