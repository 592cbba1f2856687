package nsq_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/cb02dfca/micro/internal/testserver"
)

// nsqd is a stand-in for NSQ's server that speaks version 2 of its protocol, as far as this package uses it. It does as nsqd does where
// that matters: a topic keeps what is published while it has no channel; ephemeral channels and topics go with their last client; what
// a client had when its connection broke waits for its time-out; a refusal of any command but FIN, REQ and TOUCH ends the connection.
// What it has it keeps when it is stopped and started again.
type nsqd struct {
	addr string
	conf config

	mu      sync.Mutex
	l       net.Listener
	clients map[*client]bool
	topics  map[string]*topic
	last    uint64
	said    []string // the names of the commands that came
	running sync.WaitGroup
	stopped chan struct{}
}

// config is what the flags of nsqd say.
type config struct {
	tls         *tls.Config
	tlsRequired bool
	secrets     map[string]string // what a secret may do: the beginning of the topics' names
	maxMessage  int
	heartbeat   time.Duration // 0: what the client asks for
	timeout     time.Duration // of messages; 0: what the client asks for
	refuse      string        // what PUB and MPUB are answered, where it is not empty
	silent      bool          // PUB and MPUB are not answered
	clock       time.Duration // how far its clock is ahead
}

type message struct {
	number   uint64
	body     []byte
	at       int64
	attempts int
}

func (m *message) id() (id gonsq.MessageID) {
	copy(id[:], fmt.Sprintf("%016x", m.number))
	return id
}

type topic struct {
	backlog  []*message
	channels map[string]*channel
}

type channel struct {
	queue    []*message
	deferred map[*message]time.Time
	flying   map[gonsq.MessageID]*flight
	clients  []*client // the first has its turn
}

type flight struct {
	m   *message
	c   *client
	end time.Time
}

type client struct {
	d       *nsqd
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	secret  string
	auth    bool
	wait    time.Duration // of its messages
	beat    time.Duration
	topic   string
	channel string
	// guarded by nsqd.mu
	out    [][]byte
	wake   chan struct{}
	rdy    int
	flying int
	heard  time.Time
}

func startNSQD(t testing.TB, conf config) *nsqd {
	d := &nsqd{addr: testserver.FreeAddr(), conf: conf, topics: map[string]*topic{}}
	d.start(t)
	t.Cleanup(d.kill)
	return d
}

func (d *nsqd) start(t testing.TB) {
	l, err := net.Listen("tcp", d.addr)
	must(t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.l, d.clients, d.stopped = l, map[*client]bool{}, make(chan struct{})
	d.running.Go(func() { d.accept(l) })
	d.running.Go(func() { d.tick(d.stopped) })
}

// kill breaks all connections, and keeps the topics and channels that have a name.
func (d *nsqd) kill() {
	d.mu.Lock()
	if d.l == nil {
		d.mu.Unlock()
		return
	}
	_ = d.l.Close()
	d.l = nil
	close(d.stopped)
	for c := range d.clients {
		_ = c.conn.Close()
	}
	d.mu.Unlock()
	d.running.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.topics {
		for _, ch := range t.channels {
			for m := range ch.deferred {
				ch.queue = append(ch.queue, m)
			}
			for _, f := range ch.flying {
				ch.queue = append(ch.queue, f.m)
			}
			ch.deferred, ch.flying, ch.clients = map[*message]time.Time{}, map[gonsq.MessageID]*flight{}, nil
			slices.SortFunc(ch.queue, func(a, b *message) int { return int(int64(a.number - b.number)) })
		}
	}
}

func (d *nsqd) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c := &client{d: d, conn: conn, wake: make(chan struct{}, 1), wait: time.Minute, beat: 30 * time.Second, heard: time.Now()}
		d.mu.Lock()
		if d.l != l {
			_ = conn.Close()
		}
		d.clients[c] = true
		d.mu.Unlock()
		d.running.Go(c.serve)
	}
}

// tick looks after what has a time.
func (d *nsqd) tick(stopped chan struct{}) {
	for {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-stopped:
			return
		}
		d.mu.Lock()
		now := time.Now()
		for _, t := range d.topics {
			for _, ch := range t.channels {
				for m, at := range ch.deferred {
					if now.After(at) {
						delete(ch.deferred, m)
						ch.queue = append(ch.queue, m)
					}
				}
				for id, f := range ch.flying {
					if now.After(f.end) {
						delete(ch.flying, id)
						f.c.flying--
						ch.queue = append(ch.queue, f.m)
					}
				}
				ch.pump()
			}
		}
		d.mu.Unlock()
	}
}

// pump sends what waits to the clients that are ready, in turn.
func (ch *channel) pump() {
	for len(ch.queue) > 0 {
		i := slices.IndexFunc(ch.clients, func(c *client) bool { return c.flying < c.rdy })
		if i < 0 {
			return
		}
		c, m := ch.clients[i], ch.queue[0]
		ch.clients = append(slices.Delete(ch.clients, i, i+1), c)
		ch.queue = ch.queue[1:]
		m.attempts++
		c.flying++
		ch.flying[m.id()] = &flight{m, c, time.Now().Add(c.wait)}
		id := m.id()
		data := binary.BigEndian.AppendUint64(nil, uint64(m.at))
		data = binary.BigEndian.AppendUint16(data, uint16(m.attempts))
		c.send(gonsq.FrameTypeMessage, append(append(data, id[:]...), m.body...))
	}
}

// send puts a frame into the client's queue. nsqd.mu is held.
func (c *client) send(kind int32, data []byte) {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(data)+4))
	frame = binary.BigEndian.AppendUint32(frame, uint32(kind))
	c.out = append(c.out, append(frame, data...))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *client) answer(kind int32, text string) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.send(kind, []byte(text))
}

// write sends what is queued, and heartbeats, until stop.
func (c *client) write(stop chan struct{}) {
	next := time.Now().Add(c.beat)
	for {
		c.d.mu.Lock()
		out := c.out
		c.out = nil
		late := time.Since(c.heard) > 2*c.beat+5*time.Second
		c.d.mu.Unlock()
		if late {
			_ = c.conn.Close()
		}
		for _, frame := range out {
			_, _ = c.w.Write(frame)
		}
		_ = c.w.Flush()
		select {
		case <-c.wake:
		case <-time.After(time.Until(next)):
			c.answer(gonsq.FrameTypeResponse, "_heartbeat_")
			next = time.Now().Add(c.beat)
		case <-stop:
			c.d.mu.Lock()
			out := c.out
			c.d.mu.Unlock()
			for _, frame := range out {
				_, _ = c.w.Write(frame)
			}
			_ = c.w.Flush()
			_ = c.conn.Close()
			return
		}
	}
}

func (c *client) serve() {
	defer c.conn.Close()
	defer c.gone()
	c.r, c.w = bufio.NewReader(c.conn), bufio.NewWriter(c.conn)
	magic := make([]byte, 4)
	if _, err := io.ReadFull(c.r, magic); err != nil || string(magic) != "  V2" {
		return
	}
	if !c.identify() {
		return
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { c.write(stop) })
	defer writer.Wait()
	defer close(stop)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		var body []byte
		switch words[0] {
		case "AUTH", "PUB", "MPUB":
			if body, err = c.body(); err != nil {
				return
			}
		}
		c.d.mu.Lock()
		c.heard = time.Now()
		c.d.said = append(c.d.said, words[0])
		answer := c.run(words, body)
		kind, last := gonsq.FrameTypeResponse, false
		if strings.HasPrefix(answer, "E_") {
			kind = gonsq.FrameTypeError
			last = !strings.HasPrefix(answer, "E_FIN_") && !strings.HasPrefix(answer, "E_REQ_") && !strings.HasPrefix(answer, "E_TOUCH_")
		}
		if answer != "" {
			c.send(kind, []byte(answer))
		}
		c.d.mu.Unlock()
		if last {
			return
		}
	}
}

func (c *client) body() ([]byte, error) {
	var size uint32
	if err := binary.Read(c.r, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	body := make([]byte, size)
	_, err := io.ReadFull(c.r, body)
	return body, err
}

// identify takes the first command, and goes over to TLS.
func (c *client) identify() bool {
	reply := func(text string) {
		kind := gonsq.FrameTypeResponse
		if strings.HasPrefix(text, "E_") {
			kind = gonsq.FrameTypeError
		}
		_ = binary.Write(c.w, binary.BigEndian, []uint32{uint32(len(text) + 4), uint32(kind)})
		_, _ = c.w.WriteString(text)
		_ = c.w.Flush()
	}
	if line, err := c.r.ReadString('\n'); err != nil || line != "IDENTIFY\n" {
		reply("E_INVALID cannot do that before IDENTIFY")
		return false
	}
	data, err := c.body()
	var hello struct {
		TLS       bool  `json:"tls_v1"`
		Heartbeat int64 `json:"heartbeat_interval"`
		Timeout   int64 `json:"msg_timeout"`
	}
	if err != nil || json.Unmarshal(data, &hello) != nil {
		return false
	}
	conf := c.d.conf
	c.beat, c.wait = time.Duration(hello.Heartbeat)*time.Millisecond, time.Duration(hello.Timeout)*time.Millisecond
	if conf.heartbeat > 0 {
		c.beat = conf.heartbeat
	}
	if conf.timeout > 0 {
		c.wait = conf.timeout
	}
	secure := conf.tls != nil && hello.TLS
	answer, _ := json.Marshal(map[string]any{"max_rdy_count": 2500, "version": "stand-in", "tls_v1": secure, "auth_required": conf.secrets != nil})
	reply(string(answer))
	if !secure {
		return true
	}
	conn := tls.Server(c.conn, conf.tls)
	if conn.Handshake() != nil {
		return false
	}
	c.d.mu.Lock()
	c.conn = conn
	c.d.mu.Unlock()
	c.r, c.w = bufio.NewReader(conn), bufio.NewWriter(conn)
	reply("OK")
	return true
}

// run runs a command, and gives its answer. nsqd.mu is held.
func (c *client) run(words []string, body []byte) string {
	name, _, _ := strings.Cut(words[0], " ")
	conf := c.d.conf
	if _, secure := c.conn.(*tls.Conn); conf.tlsRequired && !secure && name != "NOP" {
		return fmt.Sprintf("E_INVALID cannot %s in current state (TLS required)", name)
	}
	switch name {
	case "NOP":
		return ""
	case "AUTH":
		if _, c.auth = conf.secrets[string(body)]; !c.auth {
			return "E_AUTH_FAILED AUTH failed"
		}
		c.secret = string(body)
		return `{"identity":"test","permission_count":1}`
	case "PUB", "MPUB", "SUB":
		if refused := c.permit(name, words[1]); refused != "" {
			return refused
		}
	}
	switch name {
	case "SUB":
		return c.sub(words[1], words[2])
	case "PUB":
		return c.pub(words[1], "E_BAD_MESSAGE PUB message too big", body)
	case "MPUB":
		var bodies [][]byte
		for rest := body[4:]; len(rest) > 0; {
			n := binary.BigEndian.Uint32(rest)
			bodies, rest = append(bodies, rest[4:4+n]), rest[4+n:]
		}
		return c.pub(words[1], "E_BAD_MESSAGE MPUB message too big", bodies...)
	}
	return c.settle(words)
}

func (c *client) permit(what, topic string) string {
	if c.d.conf.secrets == nil {
		return ""
	}
	if !c.auth {
		return "E_AUTH_FIRST AUTH required before " + what
	}
	if !strings.HasPrefix(topic, c.d.conf.secrets[c.secret]) && !strings.HasPrefix(topic, "micro.clock.") {
		return fmt.Sprintf("E_UNAUTHORIZED AUTH failed for %s on %q", what, topic)
	}
	return ""
}

func (d *nsqd) topic(name string) *topic {
	if d.topics[name] == nil {
		d.topics[name] = &topic{channels: map[string]*channel{}}
	}
	return d.topics[name]
}

func (c *client) sub(name, chName string) string {
	if !gonsq.IsValidTopicName(name) || !gonsq.IsValidChannelName(chName) {
		return "E_BAD_TOPIC SUB topic or channel name is not valid"
	}
	c.topic, c.channel = name, chName
	t := c.d.topic(name)
	ch := t.channels[chName]
	if ch == nil {
		ch = &channel{deferred: map[*message]time.Time{}, flying: map[gonsq.MessageID]*flight{}, queue: t.backlog}
		t.channels[chName], t.backlog = ch, nil
	}
	ch.clients = append(ch.clients, c)
	return "OK"
}

func (c *client) pub(name, tooBig string, bodies ...[]byte) string {
	conf := c.d.conf
	if !gonsq.IsValidTopicName(name) {
		return fmt.Sprintf("E_BAD_TOPIC PUB topic name %q is not valid", name)
	}
	for _, body := range bodies {
		if conf.maxMessage > 0 && len(body) > conf.maxMessage {
			return fmt.Sprintf("%s %d > %d", tooBig, len(body), conf.maxMessage)
		}
	}
	if conf.refuse != "" {
		return conf.refuse
	}
	t := c.d.topic(name)
	for _, body := range bodies {
		c.d.last++
		m := message{number: c.d.last, body: body, at: time.Now().Add(conf.clock).UnixNano()}
		if len(t.channels) == 0 {
			t.backlog = append(t.backlog, &m)
		}
		for _, ch := range t.channels {
			own := m
			ch.queue = append(ch.queue, &own)
			ch.pump()
		}
	}
	if conf.silent {
		return ""
	}
	return "OK"
}

// settle runs what subscribers say.
func (c *client) settle(words []string) string {
	t := c.d.topics[c.topic]
	if t == nil || t.channels[c.channel] == nil {
		return fmt.Sprintf("E_INVALID cannot %s in current state", words[0])
	}
	ch := t.channels[c.channel]
	defer ch.pump()
	switch words[0] {
	case "RDY":
		c.rdy, _ = strconv.Atoi(words[1])
		return ""
	case "CLS":
		c.rdy = 0
		return "CLOSE_WAIT"
	}
	var id gonsq.MessageID
	copy(id[:], words[1])
	f := ch.flying[id]
	if f == nil || f.c != c {
		return fmt.Sprintf("E_%s_FAILED %s %s failed ID not in flight", words[0], words[0], words[1])
	}
	switch words[0] {
	case "TOUCH":
		f.end = time.Now().Add(c.wait)
		return ""
	case "REQ":
		ms, _ := strconv.Atoi(words[2])
		if ms == 0 {
			ch.queue = append(ch.queue, f.m)
		} else {
			ch.deferred[f.m] = time.Now().Add(time.Duration(ms) * time.Millisecond)
		}
	}
	delete(ch.flying, id)
	c.flying--
	return ""
}

// gone forgets the client, and what goes with it.
func (c *client) gone() {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	delete(c.d.clients, c)
	t := c.d.topics[c.topic]
	if t == nil || t.channels[c.channel] == nil {
		return
	}
	ch := t.channels[c.channel]
	ch.clients = slices.DeleteFunc(ch.clients, func(o *client) bool { return o == c })
	if len(ch.clients) == 0 && strings.HasSuffix(c.channel, "#ephemeral") {
		delete(t.channels, c.channel)
		if len(t.channels) == 0 && strings.HasSuffix(c.topic, "#ephemeral") {
			delete(c.d.topics, c.topic)
		}
	}
}

// configure changes the configuration.
func (d *nsqd) configure(change func(*config)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.conf)
}

// breakOff breaks all connections, which may be made again.
func (d *nsqd) breakOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.clients {
		_ = c.conn.Close()
	}
}

// heard counts the commands of a name that came.
func (d *nsqd) heard(name string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, said := range d.said {
		if said == name {
			n++
		}
	}
	return n
}

// names gives the topics, and the channels as topic:channel.
func (d *nsqd) names() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for topic, t := range d.topics {
		names = append(names, topic)
		for ch := range t.channels {
			names = append(names, topic+":"+ch)
		}
	}
	slices.Sort(names)
	return names
}

// lookupd is a stand-in for nsqlookupd, which knows what the nsqd's have.
func lookupd(t testing.TB, nsqds ...*nsqd) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		producers := []map[string]any{}
		for _, d := range nsqds {
			if name := r.FormValue("topic"); r.URL.Path == "/nodes" || slices.Contains(d.names(), name) {
				host, port, _ := net.SplitHostPort(d.addr)
				n, _ := strconv.Atoi(port)
				producers = append(producers, map[string]any{"broadcast_address": host, "tcp_port": n})
			}
		}
		if len(producers) == 0 && r.URL.Path == "/lookup" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"TOPIC_NOT_FOUND"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"producers": producers})
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// flying counts the messages of a channel that are under way.
func (d *nsqd) flying(topic, channel string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.topics[topic].channels[channel].flying)
}

// attempts gives how often a message of a channel that is under way has been sent, the one with the most.
func (d *nsqd) attempts(topic, channel string) (most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ch := d.topics[topic].channels[channel]; ch != nil {
		for _, f := range ch.flying {
			most = max(most, f.m.attempts)
		}
	}
	return most
}
