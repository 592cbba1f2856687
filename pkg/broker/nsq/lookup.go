package nsq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
)

const (
	maxLookup = 8 << 20
	knownTime = time.Second // for which a list of all nsqd's is used again
)

// lookup asks nsqlookupd's.
type lookup struct {
	hosts []string
	http  *http.Client

	mu    sync.Mutex
	known []string // all nsqd's, for Publish
	until time.Time
}

func newLookup(hosts []string, timeout time.Duration) *lookup {
	return &lookup{hosts: hosts, http: &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// topic gives the nsqd's that have a topic.
func (l *lookup) topic(ctx context.Context, topic string) ([]string, error) {
	return l.all(ctx, "/lookup?topic="+url.QueryEscape(topic))
}

// nodes gives all nsqd's.
func (l *lookup) nodes(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	known, fresh := l.known, time.Now().Before(l.until)
	l.mu.Unlock()
	if fresh {
		return known, nil
	}
	all, err := l.all(ctx, "/nodes")
	if err != nil && len(known) > 0 && ctx.Err() == nil {
		return known, nil // the nsqd's work without them
	}
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%w: lookupd %s knows no nsqd", broker.ErrUnavailable, l.hosts[0])
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.until = all, time.Now().Add(knownTime)
	return all, nil
}

// all asks all lookupd's at once, and joins their answers. It fails where none answers.
func (l *lookup) all(ctx context.Context, path string) ([]string, error) {
	found, errs := make([][]string, len(l.hosts)), make([]error, len(l.hosts))
	var wg sync.WaitGroup
	for i, host := range l.hosts {
		wg.Go(func() { found[i], errs[i] = l.one(ctx, host, path) })
	}
	wg.Wait()
	if len(l.hosts) > 0 && !slices.Contains(errs, nil) {
		return nil, errors.Join(errs...)
	}
	all := slices.Concat(found...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (l *lookup) one(ctx context.Context, host, path string) ([]string, error) {
	unavailable := func(err error) error {
		return fmt.Errorf("%w: lookupd %s is not answering: %w", broker.ErrUnavailable, host, reason(err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return nil, unavailable(err)
	}
	req.Header.Set("Accept", "application/vnd.nsq; version=1.0")
	rsp, err := l.http.Do(req)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rsp.Body.Close()
	if rsp.StatusCode == http.StatusNotFound {
		return nil, nil // nobody has the topic
	}
	var answer struct {
		Producers []struct {
			Address string `json:"broadcast_address"`
			Port    int    `json:"tcp_port"`
		} `json:"producers"`
	}
	data, err := io.ReadAll(io.LimitReader(rsp.Body, maxLookup))
	if err != nil {
		return nil, unavailable(err)
	}
	if rsp.StatusCode != http.StatusOK || json.Unmarshal(data, &answer) != nil {
		return nil, unavailable(fmt.Errorf("its answer is %s and no list of nsqd's", rsp.Status))
	}
	var addrs []string
	for _, p := range answer.Producers {
		addrs = append(addrs, net.JoinHostPort(p.Address, strconv.Itoa(p.Port)))
	}
	return addrs, nil
}
