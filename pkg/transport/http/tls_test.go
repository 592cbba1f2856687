package http_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	nethttp "net/http"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

// localTLS makes a configuration whose certificate is for 127.0.0.1 and trusted by itself.
func localTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: roots}
}

func TestConformanceTLS(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: newTransport(t, http.Options{TLSConfig: config}), Address: "127.0.0.1:0"}
	})
}

// TestTLSClients: over TLS a browser speaks HTTP/2, a plain client of ours HTTP/1.1.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	s := serve(t, http.Options{TLSConfig: config}, nil)
	tr := &nethttp.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	rsp, body := post(t, &nethttp.Client{Transport: tr}, "https://"+s.Addr()+"/Say.Hello", "hi", "Content-Type", jsonType)
	if rsp.StatusCode != 200 || body != "hi" || rsp.ProtoMajor != 2 {
		t.Fatalf("%s %s %q", rsp.Proto, rsp.Status, body)
	}
	c, err := s.tr.Dial(t.Context(), s.Addr()+http.PlainSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var answer transport.Message
	req := &transport.Message{Body: []byte("hi"), Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, jsonType)}
	if err := c.(transport.Caller).Call(t.Context(), req, &answer); err != nil || string(answer.Body) != "hi" {
		t.Fatalf("%v %q", err, answer.Body)
	}
}

// TestTLSMismatch: one side with TLS and one without give an error at once.
func TestTLSMismatch(t *testing.T) {
	t.Parallel()
	config := localTLS(t)
	plain, secure := serve(t, http.Options{}, nil), serve(t, http.Options{TLSConfig: config}, nil)
	if c, err := secure.tr.Dial(t.Context(), plain.Addr()); err == nil {
		c.Close()
		t.Error("TLS to a server without: Dial succeeded")
	} else if !transport.NotSent(err) || !errors.Is(err, transport.ErrProtocol) {
		t.Errorf("TLS to a server without: %v", err)
	}
	if c, err := plain.tr.Dial(t.Context(), secure.Addr()); err == nil {
		c.Close()
		t.Error("no TLS to a server with: Dial succeeded")
	} else if !transport.NotSent(err) || !errors.Is(err, transport.ErrProtocol) {
		t.Errorf("no TLS to a server with: %v", err)
	}
	stranger := newTransport(t, http.Options{TLSConfig: &tls.Config{}})
	if c, err := stranger.Dial(t.Context(), secure.Addr()); err == nil {
		c.Close()
		t.Error("a certificate that nobody vouches for was taken")
	}
	if _, err := stranger.Listen(t.Context(), "127.0.0.1:0"); err == nil {
		t.Error("Listen without a certificate succeeded")
	}
}
