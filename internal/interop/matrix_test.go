// Package interop_test runs real go-micro services and clients against this project's, and keeps the table of docs/interop.md.
package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/status"
)

// update is the environment's word for writing the table of docs/interop.md from what was seen. A flag would not reach the process of its
// own that the test runs in.
var update = os.Getenv("INTEROP") == "write"

func TestMain(m *testing.M) {
	if address := os.Getenv(roleVar); address != "" {
		if err := play(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// peer is go-micro of a version and protocol, as a service and as a client.
type peer struct {
	name, version, protocol string
	service                 *testserver.Peer
	client                  *testserver.Peer
}

var peers = []*peer{
	{name: "v1.18 mucp", version: "v1.18.0"},
	{name: "v2.9 mucp", version: "v2.9.1", protocol: "mucp"},
	{name: "v2.9 gRPC", version: "v2.9.1", protocol: "grpc"},
	{name: "v4.11 mucp", version: "v4.11.0"},
	{name: "v5.3 mucp", version: "v5.3.0"},
	{name: "v5.30 mucp", version: "v5.30.0"},
}

// of gives a name for a service or a topic of the peer's own.
func (p *peer) of(what string) string {
	return what + "-" + strings.NewReplacer(" ", "-", ".", "-").Replace(strings.ToLower(p.name))
}

// start runs the peer on this machine, whose one network has the address 10.77.0.1.
func (p *peer) start(t *testing.T) {
	own := []string{"-protocol", p.protocol, "-broker-address", "127.0.0.1:0"}
	p.service = testserver.GoMicroOf(t, p.version, append(append([]string{"serve", "-pace", "100ms"}, own...), "-address", "127.0.0.1:0", "-topic", p.of("events"), p.of("theirs"))...)
	p.client = testserver.GoMicroOf(t, p.version, append([]string{"client", "-meta", "Trace=theirs"}, own...)...)
}

// alone runs a test on a machine of its own that has one network with multicast, once go-micro of the versions is built.
func alone(t *testing.T, versions ...string) bool {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds go-micro")
	}
	for _, v := range versions {
		testserver.BuildGoMicro(t, v)
	}
	if !netspace.Alone(t) {
		return false
	}
	for _, step := range []string{"link add lan type veth peer name far", "addr add 10.77.0.1/24 dev lan", "link set lan up", "link set far up", "route add default dev lan"} {
		if out, err := exec.Command("ip", strings.Fields(step)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", step, err, out)
		}
	}
	return true
}

// answer is what a program of go-micro answers an order with.
type answer struct {
	Reply    json.RawMessage
	Messages []Response
	End      string
	Error    json.RawMessage
}

// do gives the answer of the peer's client.
func (p *peer) do(order string) (a answer, err error) {
	text := p.client.Do(order)
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("%s: %w", text, err)
	}
	return a, nil
}

// reply gives the reply of a call.
func (p *peer) reply(contentType, order string) (rsp Response, err error) {
	if a, err := p.do("type " + contentType); err != nil || a.Error != nil {
		return rsp, fmt.Errorf("%s, %w", a.Error, err)
	}
	a, err := p.do(order)
	switch {
	case err != nil:
		return rsp, err
	case a.Error != nil:
		return rsp, fmt.Errorf("%s", a.Error)
	}
	return rsp, json.Unmarshal(a.Reply, &rsp)
}

// row is something that both sides do with the other: theirs calls ours, and ours calls theirs.
type row struct {
	what   string
	theirs func(p *peer, o *ours) error
	ours   func(p *peer, o *ours) error
}

const rowPanic = "panic is answered"

// errNone is of what a peer does not have at all.
var errNone = errors.New("it has none")

func rows() []row {
	all := []row{{"found by mDNS", findsOurs, isFound}}
	for _, ct := range []string{"json", "protobuf", "json-rpc", "proto-rpc"} {
		ct := "application/" + ct
		all = append(all, row{"call, `" + ct + "`", callsOurs(ct, 0), isCalled(ct, 0)}, row{"call, `" + ct + "`, with an int64", callsOurs(ct, 1<<53+1), isCalled(ct, 1<<53+1)})
	}
	all = append(all,
		row{"metadata of a call", sendsMetadata, getsMetadata},
		row{"go-micro's error, JSON", failsAs("application/json", "bad", 400, "bad name: bad"), tellsError("application/json", "bad", 400, "bad name: bad")},
		row{"go-micro's error, protobuf", failsAs("application/protobuf", "bad", 400, "bad name: bad"), tellsError("application/protobuf", "bad", 400, "bad name: bad")},
		row{"plain error", failsAs("application/json", "plain", 500, ""), tellsError("application/json", "plain", 500, "a plain error")},
	)
	for _, ct := range []string{"json", "protobuf", "json-rpc", "proto-rpc"} {
		ct := "application/" + ct
		all = append(all,
			row{"stream both ways, `" + ct + "`", streamsToOurs(ct, ""), isStreamedTo(ct, "")},
			row{"stream both ways that the service ends, `" + ct + "`", streamsToOurs(ct, "EOF"), isStreamedTo(ct, "EOF")},
			row{"stream from the service, `" + ct + "`", countsOurs(ct), isCounted(ct)})
	}
	all = append(all,
		row{"stream whose client ends its half first", func(*peer, *ours) error { return errNone }, isToldTheEnd},
		row{"stream that fails", streamOfOursFails, streamFails})
	for _, ct := range []string{"json", "protobuf"} {
		ct := "application/" + ct
		all = append(all, row{"publish, `" + ct + "`", publishesToOurs(ct), isPublishedTo(ct)})
	}
	all = append(all, row{rowPanic, failsAs("application/json", "panic", 500, ""), tellsError("application/json", "panic", 500, "")}) // go-micro v1 dies of it
	return all
}

func same[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func findsOurs(p *peer, o *ours) error {
	var last string
	for range 20 {
		a, err := p.do("list")
		if err != nil {
			return err
		}
		if last = string(a.Reply); strings.Contains(last, `"`+o.Name()+`"`) {
			return nil
		}
	}
	return fmt.Errorf("it lists %s", last)
}

func isFound(p *peer, o *ours) error {
	nodes, err := o.Registry().Get(context.Background(), p.of("theirs"))
	if err != nil {
		return err
	}
	return same(len(nodes), 1)
}

func callsOurs(contentType string, n int64) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		rsp, err := p.reply(contentType, fmt.Sprintf(`call %s Say.Hello {"name":"Jöhn","count":%d}`, o.Name(), n))
		if err != nil {
			return err
		}
		return same(fmt.Sprint(rsp.Msg, rsp.Seq), fmt.Sprint("Hello Jöhn from ours", n))
	}
}

func isCalled(contentType string, n int64) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		rsp, err := o.call(p, "Say.Hello", &Request{Name: "Jöhn", Count: n}, client.ContentType(contentType))
		if err != nil {
			return err
		}
		return same(fmt.Sprint(rsp.Msg, rsp.Seq), fmt.Sprint("Hello Jöhn from ", p.version, n))
	}
}

// call calls the peer's service.
func (o *ours) call(p *peer, endpoint string, req *Request, options ...client.CallOption) (*Response, error) {
	return client.Call[Response](context.Background(), o.Client(), p.of("theirs"), endpoint, req, append(options, client.Timeout(3*time.Second))...)
}

func sendsMetadata(p *peer, o *ours) error {
	rsp, err := p.reply("application/json", "call "+o.Name()+" Say.Header {}")
	if err != nil {
		return err
	}
	return same(rsp.Header["trace"], "theirs")
}

func getsMetadata(p *peer, o *ours) error {
	rsp, err := o.call(p, "Say.Header", &Request{}, client.Header("trace", "ours"))
	if err != nil {
		return err
	}
	return same(rsp.Header["Trace"], "ours")
}

// failsAs is an error of ours, whose code and detail go-micro's client has. The detail of a plain error stays with the service.
func failsAs(contentType, name string, code int, detail string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if a, err := p.do("type " + contentType); err != nil || a.Error != nil {
			return fmt.Errorf("%s, %w", a.Error, err)
		}
		a, err := p.do("call " + o.Name() + ` Say.Fail {"name":"` + name + `"}`)
		if err != nil {
			return err
		}
		var e struct {
			ID, Detail string
			Code       int
		}
		if err := json.Unmarshal(a.Error, &e); err != nil {
			return fmt.Errorf("its client has %s, %s", a.Reply, a.Error)
		}
		if e.ID != o.Name() || e.Code != code || !strings.Contains(e.Detail, detail) {
			return fmt.Errorf("its client has %s", a.Error)
		}
		return nil
	}
}

func tellsError(contentType, name string, code status.Code, detail string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		_, err := o.call(p, "Say.Fail", &Request{Name: name}, client.ContentType(contentType))
		var e *status.Error
		if !errors.As(err, &e) || !e.Remote || e.Code != code || !strings.Contains(e.Detail, detail) {
			return fmt.Errorf("our client has %w", err)
		}
		return nil
	}
}

// ends checks a stream's messages and its end.
func ends(a answer, end string, want ...string) error {
	var got []string
	for _, m := range a.Messages {
		got = append(got, fmt.Sprint(m.Msg, " ", m.Seq))
	}
	if !slices.Equal(got, want) || a.End != end {
		return fmt.Errorf("got %q, %q, %s", got, a.End, a.Error)
	}
	return nil
}

// finish is the message by which a stream ends as it should.
var finish = map[string]string{"EOF": `,{"name":"finish"}`}

func streamsToOurs(contentType, end string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		if _, err := p.do("type " + contentType); err != nil {
			return err
		}
		a, err := p.do("stream " + o.Name() + ` Stream.Echo [{"name":"a","count":1},{"name":"b","count":2}` + finish[end] + `]`)
		if err != nil {
			return err
		}
		return ends(a, end, "echo a 1", "echo b 2")
	}
}

func countsOurs(contentType string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		if _, err := p.do("type " + contentType); err != nil {
			return err
		}
		a, err := p.do("count " + o.Name() + ` Stream.Count {"name":"a","count":3}`)
		if err != nil {
			return err
		}
		return ends(a, "EOF", "item a 1", "item a 2", "item a 3")
	}
}

func streamOfOursFails(p *peer, o *ours) error {
	if _, err := p.do("type application/json"); err != nil {
		return err
	}
	a, err := p.do("stream " + o.Name() + ` Stream.Echo [{"name":"a","count":1},{"name":"fail"}]`)
	if err != nil {
		return err
	}
	if !bytes.Contains(a.Error, []byte("no more")) || !bytes.Contains(a.Error, []byte("403")) {
		return fmt.Errorf("its client has %s", a.Error)
	}
	return ends(a, "", "echo a 1")
}

// converse sends each message and reads an answer each, or all there are, and gives how the stream ended.
func (o *ours) converse(p *peer, endpoint, contentType string, all bool, messages ...*Request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := o.Client().Stream(ctx, p.of("theirs"), endpoint, client.ContentType(contentType))
	if err != nil {
		return a, err
	}
	defer func() { _ = s.Close() }()
	for _, m := range messages {
		if err := s.Send(m); err != nil {
			return a, err
		}
		for {
			var rsp Response
			if err := s.Recv(&rsp); err != nil {
				if errors.Is(err, io.EOF) {
					a.End, err = "EOF", nil
				}
				return a, err
			}
			a.Messages = append(a.Messages, rsp)
			if !all {
				break
			}
		}
	}
	return a, nil
}

func isStreamedTo(contentType, end string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		messages := []*Request{{Name: "a", Count: 1}, {Name: "b", Count: 2}}
		if end == "EOF" {
			messages = append(messages, &Request{Name: "finish"})
		}
		a, err := o.converse(p, "Stream.Echo", contentType, false, messages...)
		if err != nil {
			return err
		}
		return ends(a, end, "echo a 1", "echo b 2")
	}
}

// isToldTheEnd sends all there is and its end, and reads what is still answered, and the service's end.
func isToldTheEnd(p *peer, o *ours) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := o.Client().Stream(ctx, p.of("theirs"), "Stream.Echo", client.ContentType("application/json"))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := errors.Join(s.Send(&Request{Name: "a", Count: 1}), s.Send(&Request{Name: "b", Count: 2}), s.CloseSend()); err != nil {
		return err
	}
	a := answer{End: "EOF"}
	for {
		var rsp Response
		err := s.Recv(&rsp)
		if errors.Is(err, io.EOF) {
			return ends(a, "EOF", "echo a 1", "echo b 2")
		} else if err != nil {
			return err
		}
		a.Messages = append(a.Messages, rsp)
	}
}

func isCounted(contentType string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if p.protocol == "grpc" && strings.HasSuffix(contentType, "-rpc") {
			return errNone
		}
		a, err := o.converse(p, "Stream.Count", contentType, true, &Request{Name: "a", Count: 3})
		if err != nil {
			return err
		}
		return ends(a, "EOF", "item a 1", "item a 2", "item a 3")
	}
}

func streamFails(p *peer, o *ours) error {
	a, err := o.converse(p, "Stream.Echo", "application/json", false, &Request{Name: "a", Count: 1}, &Request{Name: "fail"})
	var e *status.Error
	if !errors.As(err, &e) || e.Code != status.PermissionDenied || e.Detail != "no more" {
		return fmt.Errorf("our client has %w", err)
	}
	return ends(a, "", "echo a 1")
}

func publishesToOurs(contentType string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		if _, err := p.do("type " + contentType); err != nil {
			return err
		}
		if a, err := p.do("publish " + p.of("ours") + ` {"name":"` + contentType + `","count":7}`); err != nil || a.Error != nil {
			return fmt.Errorf("%s, %w", a.Error, err)
		}
		select {
		case m := <-o.heard:
			return same(fmt.Sprint(m.topic, m.name, m.count), fmt.Sprint(p.of("ours"), contentType, 7))
		case <-time.After(3 * time.Second):
			return errors.New("nothing came")
		}
	}
}

func isPublishedTo(contentType string) func(*peer, *ours) error {
	return func(p *peer, o *ours) error {
		report, err := o.Client().Publish(context.Background(), p.of("events"), &Request{Name: contentType, Count: 7}, client.ContentType(contentType), client.Header("trace", "ours"))
		if err != nil {
			return err
		}
		if report.Delivered() != 1 {
			return fmt.Errorf("%+v", report)
		}
		select {
		case text := <-p.service.Told("event"):
			var m struct {
				Name   string
				Count  int
				Header map[string]string
			}
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				return err
			}
			return same(fmt.Sprint(m.Name, m.Count, m.Header["Trace"]), contentType+"7ours")
		case <-time.After(3 * time.Second):
			return errors.New("nothing came")
		}
	}
}

// TestMatrix is the table of docs/interop.md: every pairing of this project with go-micro's versions. With INTEROP=write it writes what it saw.
func TestMatrix(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	topics := map[string]string{}
	for _, p := range peers {
		topics[p.of("ours")] = ""
	}
	o := serve(t, "ours", topics)
	for _, p := range peers {
		p.start(t)
	}
	for _, p := range peers {
		o.found(t, p.of("theirs"), 1)
	}
	keep(t, table(t, o))
}

// table runs all rows, and gives the table in Markdown with the causes of what does not work.
func table(t *testing.T, o *ours) string {
	var text strings.Builder
	fmt.Fprint(&text, "| |")
	for _, p := range peers {
		fmt.Fprintf(&text, " %s -> ours | ours -> %s |", p.name, p.name)
	}
	fmt.Fprint(&text, "\n| --- |"+strings.Repeat(" --- | --- |", len(peers))+"\n")
	var causes []string
	for _, r := range rows() {
		fmt.Fprintf(&text, "| %s |", r.what)
		for _, p := range peers {
			for direction, f := range []func(*peer, *ours) error{r.theirs, r.ours} {
				fmt.Fprintf(&text, " %s |", p.cell(t, r.what, direction, f(p, o), &causes))
			}
		}
		fmt.Fprintln(&text)
	}
	for i, c := range causes {
		fmt.Fprintf(&text, "\n%d. %s", i+1, c)
	}
	return text.String() + "\n"
}

// cell gives a cell's text for what became of it. A cause is told once, below the table.
func (p *peer) cell(t *testing.T, what string, direction int, err error, causes *[]string) string {
	t.Helper()
	switch {
	case errors.Is(err, errNone):
		return "-"
	case err == nil:
		return "yes"
	}
	t.Logf("%s, %s, %s: %v", p.name, [...]string{"theirs calls ours", "ours calls theirs"}[direction], what, err)
	c := p.cause(what, direction == 1)
	if c == "" {
		return "not yet"
	}
	i := slices.Index(*causes, c)
	if i < 0 {
		i = len(*causes)
		*causes = append(*causes, c)
	}
	return fmt.Sprintf("no (%d)", i+1)
}

// cause names what in go-micro keeps something from working, empty where nothing does.
func (p *peer) cause(what string, oursCalls bool) string {
	ends := strings.Contains(what, "that the service ends") || strings.Contains(what, "from the service") || strings.Contains(what, "error")
	switch {
	case oursCalls && what == rowPanic && p.version == "v1.18.0":
		return "A handler's panic ends the process of v1; our caller has an error at once, since the connection breaks."
	case oursCalls && what == rowPanic && p.protocol != "grpc":
		return "A server of v2 (mucp), v4 or v5 whose handler panics sends no answer; our caller's time runs out."
	case oursCalls && p.name == "v2.9 mucp" && ends && strings.Contains(what, "protobuf"):
		return "v2's server cannot write what has no message in protobuf, so that neither an error nor the end of a stream leaves it (its own clients wait, too); in JSON both do."
	}
	return ""
}

const page = "../../docs/interop.md"

// keep compares the table with the page's, or writes it there. What works and the page does not know of yet is only told.
func keep(t *testing.T, table string) {
	t.Helper()
	const begin, end = "<!-- the matrix -->\n", "<!-- its end -->\n"
	data, err := os.ReadFile(page)
	must(t, err)
	before, rest, ok := strings.Cut(string(data), begin)
	was, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	if update {
		must(t, os.WriteFile(page, []byte(before+begin+table+end+after), 0o644))
		return
	}
	if was == table {
		return
	}
	t.Logf("what was seen is not what %s says, which INTEROP=write mends:\n%s", page, table)
	now := cells(table)
	for place, text := range cells(was) {
		if got := now[place]; text == "yes" && got != text {
			t.Errorf("%s: %q, and %s says %s", place, got, page, text)
		}
	}
}

// cells gives a table's cells by their row and column.
func cells(table string) map[string]string {
	all := map[string]string{}
	var columns []string
	for line := range strings.Lines(table) {
		row := strings.Split(strings.Trim(line, "| \n"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
		case columns == nil:
			columns = append([]string{""}, row...)
		case len(row) == len(columns):
			for i, text := range row[1:] {
				all[row[0]+", "+columns[i+1]] = text
			}
		}
	}
	return all
}
