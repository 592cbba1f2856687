package testserver

import (
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Etcd says how an etcd is run, with flags beside those that every one has: with --cert-file it speaks TLS.
func Etcd(flags ...string) Spec {
	scheme, metrics := "http", ""
	if slices.Contains(flags, "--cert-file") {
		scheme = "https"
	}
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			client, peer := scheme+"://"+s.Listen, "http://"+FreeAddr()
			listen, addr := s.Another()
			metrics = "http://" + addr
			return append([]string{
				"etcd", "--data-dir", filepath.Join(s.Dir, "data"),
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
				"--listen-metrics-urls", "http://" + listen, "--logger", "zap", "--log-level", "error",
			}, flags...), nil
		},
		Ready: func(*Server) bool {
			_, body := Request(http.MethodGet, metrics+"/health", "")
			return strings.Contains(body, `"health":"true"`)
		},
	}
}

// EtcdMissing says what lacks to run an etcd.
func EtcdMissing() error {
	if _, err := exec.LookPath("etcd"); err != nil {
		return errors.New("no etcd: install Debian's etcd-server")
	}
	return nil
}

// Request asks a server over HTTP, with pairs of header fields, and gives 0 and the error where it does not answer.
func Request(method, url, body string, header ...string) (code int, answer string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	rsp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer rsp.Body.Close()
	data, _ := io.ReadAll(rsp.Body)
	return rsp.StatusCode, string(data)
}
