package testserver

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Consul says how an agent of Consul is run that is a cluster by itself and keeps nothing, with flags beside those that every one has.
// CI builds it; where it cannot be built tests skip by [ConsulMissing].
func Consul(flags ...string) Spec {
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			file, _ := Build("consul", consulTarget) // the error is ConsulMissing's
			host, port, _ := net.SplitHostPort(s.Listen)
			return append([]string{
				file, "agent", "-dev", "-bind", "127.0.0.1", "-client", host, "-http-port", port,
				"-grpc-port", "-1", "-dns-port", "-1", "-serf-lan-port", freePort(), "-serf-wan-port", "-1", "-server-port", freePort(),
				"-log-level", "error", "-hcl", "limits { http_max_conns_per_client = 2000 }",
			}, flags...), nil
		},
		Ready: func(s *Server) bool { // what is registered will be found
			code, body := Request(http.MethodGet, "http://"+s.Addr+"/v1/status/leader", "")
			return code == http.StatusOK && strings.Contains(body, ":")
		},
	}
}

func freePort() string {
	_, port, _ := net.SplitHostPort(FreeAddr())
	return port
}

const consulTarget = "github.com/hashicorp/consul"

// ConsulMissing says what lacks to run a Consul. It builds one, which takes minutes the first time.
func ConsulMissing() error {
	if _, err := Build("consul", consulTarget); err != nil {
		return fmt.Errorf("no Consul: %w", err)
	}
	return nil
}
