package consul

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// MetaOwner is the key of a service's Meta under which stands who registered the node: a random name of the Registry.
const MetaOwner = "micro-owner"

// What Consul takes in a service's Meta.
const (
	maxMeta      = 64
	maxMetaKey   = 128
	maxMetaValue = 512
)

// instance is a service of an agent, as Consul shows it.
type instance struct {
	ID      string
	Service string
	Tags    []string
	Meta    map[string]string
	Address string
	Port    int
}

// check is one of the checks that tell how an instance is.
type check struct {
	CheckID string
	Status  string
}

// entry is an instance in the catalog.
type entry struct {
	Node struct {
		Node    string
		Address string
	}
	Service instance
	Checks  []check
}

const critical = "critical"

// passes reports whether no check of the instance is critical.
func (e *entry) passes() bool {
	return !slices.ContainsFunc(e.Checks, func(c check) bool { return c.Status == critical })
}

// registration is a node as it is registered.
type registration struct {
	instance
	ttl  time.Duration // of the check
	body []byte        // as an agent wants it
}

// encode validates n and gives its registration. The error wraps registry.ErrInvalid.
func encode(n registry.Node, owner string, ttl time.Duration) (*registration, error) {
	if _, err := record.Encode(n); err != nil { // for its size
		return nil, err
	}
	if err := validID(n.ID); err != nil {
		return nil, err
	}
	r := &registration{ttl: ttl, instance: instance{ID: n.ID, Service: n.Service, Meta: metaOf(n, owner)}}
	r.Address, r.Port = splitAddress(n.Address)
	var err error
	if r.Tags, err = tagsOf(n); err != nil {
		return nil, err
	}
	r.body, err = json.Marshal(map[string]any{
		"ID": r.ID, "Name": r.Service, "Tags": r.Tags, "Meta": r.Meta, "Address": r.Address, "Port": r.Port,
		"Check": map[string]string{"TTL": ttl.String(), "DeregisterCriticalServiceAfter": removal(ttl).String(), "Status": "passing"},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	return r, nil
}

// validID refuses an id that is no path: Consul's server would take it for another.
func validID(id string) error {
	if path.Clean(id) != id {
		return fmt.Errorf("%w: node id %q: Consul takes no empty part and no '.' between slashes", registry.ErrInvalid, id)
	}
	return nil
}

// removal is how long a node is critical before Consul removes it: as go-micro has it, as a minute is Consul's minimum.
func removal(ttl time.Duration) time.Duration { return max(ttl, time.Minute) + 5*time.Second }

// metaOf gives the pairs of n's metadata that Consul takes, and the owner.
func metaOf(n registry.Node, owner string) map[string]string {
	meta := make(map[string]string, len(n.Metadata)+1)
	for _, k := range slices.Sorted(maps.Keys(n.Metadata)) {
		if v := n.Metadata[k]; len(meta) < maxMeta-1 && len(k) <= maxMetaKey && len(v) <= maxMetaValue && isMetaKey(k) {
			meta[k] = v
		}
	}
	meta[MetaOwner] = owner
	return meta
}

func isMetaKey(key string) bool {
	return !strings.HasPrefix(key, "consul-") && !strings.ContainsFunc(key, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	})
}

// same reports whether an agent has the instance as it was registered.
func (i *instance) same(j *instance) bool {
	return i.ID == j.ID && i.Service == j.Service && i.Address == j.Address && i.Port == j.Port &&
		slices.Equal(i.Tags, j.Tags) && maps.Equal(i.Meta, j.Meta)
}

// splitAddress gives the host and the port of an address, where joinAddress makes the same of them; else the address without
// a port.
func splitAddress(address string) (host string, port int) {
	host, text, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || host == "" || port < 1 || port > 65535 || joinAddress(host, port) != address {
		return address, 0
	}
	return host, port
}

func joinAddress(host string, port int) string {
	if port == 0 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}
