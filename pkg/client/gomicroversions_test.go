package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// named and answered are what the endpoints of servers/gomicropeer take and give. A number of 64 bits is JSON's number or a text.
type named struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

type answered struct {
	Msg    string            `json:"msg"`
	Seq    any               `json:"seq"`
	Header map[string]string `json:"header"`
}

// TestGoMicroVersions: services of go-micro's versions are called in each content type, at their address and as they are found, and streamed
// with, and their errors are read.
func TestGoMicroVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			args := []string{"serve", "-pace", "100ms", "-registry", "memory", "-address", "127.0.0.1:0", "-broker-address", "127.0.0.1:0"}
			if version == "v2.9.1" {
				args = append(args, "-protocol", "mucp")
			}
			peer := testserver.GoMicroOf(t, version, append(args, "greeter")...)
			var address string
			if err := json.Unmarshal([]byte(<-peer.Told("address")), &address); err != nil {
				t.Fatal(err)
			}
			c := finder(t, address)
			t.Run("calls", func(t *testing.T) { callVersion(t, c, address, version) })
			t.Run("errors", func(t *testing.T) { failVersion(t, c, version) })
			t.Run("streams", func(t *testing.T) { streamVersion(t, c) })
		})
	}
}

func callVersion(t *testing.T, c *client.Client, address, version string) {
	hello := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "Ada")
	hello = protowire.AppendVarint(protowire.AppendTag(hello, 2, protowire.VarintType), 3)
	want := "Hello Ada from " + version
	for _, contentType := range []string{"application/protobuf", "application/proto-rpc"} {
		rsp, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: contentType, Body: hello})
		if err != nil || !bytes.Contains(rsp.Body, []byte(want)) || rsp.ContentType != "application/protobuf" {
			t.Errorf("%s: %+v, %v", contentType, rsp, err)
		}
	}
	for _, where := range [][]client.CallOption{nil, {client.Address(address)}, {client.Address("mucp://" + address)}} {
		for _, endpoint := range []string{"Say.Hello", "Plain.Hello"} {
			for _, contentType := range []string{"application/json", "application/json-rpc"} {
				rsp, err := client.Call[answered](t.Context(), c, "greeter", endpoint, &named{"Ada", 3}, append(where, client.ContentType(contentType))...)
				if err != nil || rsp.Msg != want || fmt.Sprint(rsp.Seq) != "3" {
					t.Errorf("%s in %s: %+v, %v", endpoint, contentType, rsp, err)
				}
			}
		}
	}
	rsp, err := client.Call[answered](t.Context(), c, "greeter", "Say.Header", &named{}, client.ContentType("application/json"), client.Header("trace", "t-1"),
		client.Timeout(2*time.Second))
	if err != nil || rsp.Header["Trace"]+rsp.Header["trace"] != "t-1" || len(rsp.Header["Timeout"]+rsp.Header["timeout"]) != len("1999999999") {
		t.Errorf("metadata: %v, %v", rsp, err)
	}
	var work sync.WaitGroup
	for i := range 10 {
		work.Go(func() {
			for j := range 30 {
				name := fmt.Sprint(i, "-", j)
				rsp, err := client.Call[answered](t.Context(), c, "greeter", "Plain.Hello", &named{Name: name}, client.ContentType("application/json"))
				if err != nil || rsp.Msg != "Hello "+name+" from "+version {
					t.Errorf("%+v, %v", rsp, err)
				}
			}
		})
	}
	work.Wait()
}

func failVersion(t *testing.T, c *client.Client, version string) {
	call := func(endpoint, name string, opts ...client.CallOption) error {
		return c.Call(t.Context(), "greeter", endpoint, &named{Name: name, Count: 3000}, nil, append(opts, client.ContentType("application/json"))...)
	}
	for _, tt := range []struct {
		endpoint, name string
		want           status.Error
	}{
		{"Say.Fail", "x", status.Error{ID: "say.fail", Code: 400, Detail: "bad name: x"}},
		{"Say.Fail", "plain", status.Error{Code: 500, Detail: "a plain error"}},
		{"Say.Nope", "x", status.Error{Code: 500, Detail: "rpc: can't find method Nope"}},
		{"Nope.Nope", "x", status.Error{Code: 500, Detail: "rpc: can't find service Nope"}},
		{"Nope", "x", status.Error{Code: 500, Detail: "rpc: service/endpoint request ill-formed: Nope"}},
	} {
		err := call(tt.endpoint, tt.name)
		e, ok := errors.AsType[*status.Error](err)
		if !ok || e.ID != tt.want.ID || e.Code != tt.want.Code || e.Detail != tt.want.Detail || !e.Remote || e.Refused {
			t.Errorf("%s %s: %v, want %v", tt.endpoint, tt.name, err, &tt.want)
		}
	}
	_, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "application/json", Body: []byte(`{"name":`)})
	if e, ok := errors.AsType[*status.Error](err); !ok || !e.Remote || e.Detail == "" {
		t.Errorf("a body that does not decode: %v", err)
	}
	slow := []string{"sleep"}
	if version != "v1.18.0" { // whose process ends
		slow = append(slow, "panic")
	}
	for _, name := range slow {
		if err := call("Say.Fail", name, client.Timeout(200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
			t.Errorf("%s: %v, want that the time is over", name, err)
		}
	}
	if err := call("Say.Hello", "x"); err != nil {
		t.Errorf("after those: %v", err)
	}
}

func streamVersion(t *testing.T, c *client.Client) {
	for _, test := range []struct {
		endpoint string
		send     []named // in step with the answers
		want     []string
		end      error // nil: the client ends it
	}{
		{"Stream.Echo", []named{{Name: "a"}, {Name: "b"}}, []string{"echo a", "echo b"}, nil},
		{"Stream.Echo", []named{{Name: "a"}, {Name: "finish"}}, []string{"echo a"}, io.EOF},
		{"Stream.Echo", []named{{Name: "a"}, {Name: "fail"}}, []string{"echo a"}, &status.Error{ID: "stream.echo", Code: 403, Detail: "no more"}},
		{"Stream.Count", []named{{Name: "a", Count: 3}}, []string{"item a", "item a", "item a"}, io.EOF},
	} {
		st, err := c.Stream(t.Context(), "greeter", test.endpoint, client.ContentType("application/json"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range max(len(test.send), len(test.want)) {
			if i < len(test.send) {
				if err := st.Send(&test.send[i]); err != nil {
					t.Fatal(err)
				}
			}
			var rsp answered
			if i >= len(test.want) {
				break
			}
			if err := st.Recv(&rsp); err != nil || rsp.Msg != test.want[i] || test.endpoint == "Stream.Count" && !strings.Contains(fmt.Sprint(rsp.Seq), fmt.Sprint(i+1)) {
				t.Errorf("%s: %+v, %v, want %s", test.endpoint, rsp, err, test.want[i])
			}
		}
		if test.end == nil {
			if err := st.CloseSend(); err != nil {
				t.Errorf("CloseSend: %v", err)
			}
			if err := st.Recv(new(answered)); !errors.Is(err, io.EOF) {
				t.Errorf("%s, whose handler was told of the end: %v", test.endpoint, err)
			}
		} else if err := st.Recv(new(answered)); !errors.Is(err, test.end) {
			t.Errorf("%s ended with %v, want %v", test.endpoint, err, test.end)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}
