package worker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/cb02dfca/micro/bench/internal/cell"
)

// Batch is how many messages a publisher hands over at once: fewer to many subscribers, so that it does not take seconds.
func Batch(c cell.Cell) int { return max(1, min(4000, 64_000/c.Conns)) }

// Payload gives n bytes to send.
func Payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// Check tells whether an answer is what was sent, by its length and its last bytes: comparing all would be a visible part of
// a large call's cost.
func Check(got, want []byte) error {
	const last = 8
	if len(got) != len(want) || string(got[max(0, len(got)-last):]) != string(want[max(0, len(want)-last):]) {
		return fmt.Errorf("answered %d bytes, which are not the %d that were sent", len(got), len(want))
	}
	return nil
}

// Certificate makes a server's TLS configuration, and the certificate in it for Place.
func Certificate() (*tls.Config, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, der, nil
}

// TLS gives the client's TLS configuration that trusts the certificate of p; nil where p has none.
func (p Place) TLS() (*tls.Config, error) {
	if p.Certificate == nil {
		return nil, nil
	}
	cert, err := x509.ParseCertificate(p.Certificate)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{RootCAs: pool}, nil
}
