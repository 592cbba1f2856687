package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// NATS says how a NATS server is run, of the version that servers/nats names. config is added to its configuration, in its own
// language:
//
//	jetstream: {store_dir: "DIR"}                                streams, below the server's own Dir
//	authorization: {user: svc, password: "secret"}               a login; or {token: "secret"}
//	tls: {cert_file: "F", key_file: "F", ca_file: "F", verify: true}
//	max_payload: 8MB
//
// DIR stands for the server's Dir. CI builds the server; where it cannot be built tests skip by [NATSMissing].
func NATS(config ...string) Spec {
	return Spec{
		Command: func(s *Server) (argv, env []string) {
			binary, _ := Build("nats", natsTarget) // the error is NATSMissing's
			lines := append([]string{fmt.Sprintf("listen: %q", s.Addr), "max_payload: 8MB", "write_deadline: 2s"}, config...)
			text := strings.ReplaceAll(strings.Join(lines, "\n")+"\n", "DIR", s.Dir)
			file := filepath.Join(s.Dir, "nats.conf")
			_ = os.WriteFile(file, []byte(text), 0o600) // the server says that it lacks
			return []string{binary, "-c", file}, nil
		},
		// It listens before JetStream is ready, and says so when all is.
		Ready: func(s *Server) bool { return strings.Contains(s.Log(), "Server is ready") && Listening(s) },
	}
}

const natsTarget = "github.com/nats-io/nats-server/v2"

// NATSMissing says what lacks to run a NATS server. It builds one, which takes a minute the first time.
func NATSMissing() error {
	if _, err := Build("nats", natsTarget); err != nil {
		return fmt.Errorf("no NATS server: %w", err)
	}
	return nil
}
