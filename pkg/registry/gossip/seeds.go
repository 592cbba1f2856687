package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
	"github.com/cb02dfca/micro/pkg/status"
)

// How seeds, and members that were lost, are tried.
const (
	firstRetry  = 250 * time.Millisecond // between two rounds that did not reach all, doubled up to
	lastRetry   = 10 * time.Second       // or, where all seeds are of this machine, up to
	nearRetry   = time.Second
	roundPace   = 200 * time.Millisecond // between two rounds at least
	quietTime   = time.Minute            // between two rounds when all is well, and two meetings by one seed
	lostTime    = 24 * time.Hour         // that a lost member is looked for
	maxLost     = 128
	lostAtOnce  = 4 // of one round
	resolveTime = 3 * time.Second
	doorPace    = 100 * time.Millisecond // between two tries to take a door that another process has, as it may have been killed
	doorGrace   = 5 * doorPace           // that a first round gives to those who may be about to take it
)

// seeker finds the others: it tries the seeds, and members that were lost.
type seeker struct {
	r     *Registry
	first chan struct{}      // closed when the others were met, or the first round is over
	hurry chan chan struct{} // asks for a round now; what is sent is closed after it
	once  sync.Once

	mu      sync.Mutex                  // nothing else is locked with it
	holding bool                        // the member is to hold the door
	met     map[string]time.Time        // addresses of seeds, when they were met
	lost    map[string]time.Time        // addresses of members, when they were lost
	near    map[netip.AddrPort]struct{} // addresses of seeds on loopback
	trouble error                       // why nobody was met, of the last round
	door    net.Listener
	doors   sync.WaitGroup
}

func newSeeker(r *Registry) *seeker {
	return &seeker{r: r, first: make(chan struct{}), hurry: make(chan chan struct{}), met: map[string]time.Time{}, lost: map[string]time.Time{}, near: map[netip.AddrPort]struct{}{}}
}

// run tries until the member's end.
func (s *seeker) run() {
	defer s.begun()
	longest := nearRetry
	for _, seed := range s.r.o.Seeds {
		if host, _, _ := net.SplitHostPort(seed); !isLocal(host) {
			longest = lastRetry
		}
	}
	wait := time.Duration(0)
	var asked []chan struct{}
	for {
		begun := time.Now()
		if s.round() {
			wait = 0
		} else {
			wait = min(max(2*wait, firstRetry), longest)
		}
		s.begun()
		s.judge()
		for _, done := range asked {
			close(done)
		}
		asked = nil
		next := quietTime
		if wait > 0 {
			next = retry.Jitter(wait)
		}
		timer := time.NewTimer(next)
		select {
		case <-s.r.life.Done():
			timer.Stop()
			return
		case done := <-s.hurry:
			timer.Stop()
			asked = append(asked, done)
			continue
		case <-s.r.table.moved:
			s.judge()
		case <-timer.C:
		}
		timer.Stop()
		if pace := roundPace - time.Since(begun); pace > 0 && !retry.Pause(s.r.life, pace) {
			return
		}
	}
}

// begun lets the first request go on.
func (s *seeker) begun() { s.once.Do(func() { close(s.first) }) }

// now waits for a round that begins from here on, at most as long as a first answer is waited for.
func (s *seeker) now(ctx context.Context) error {
	timer := time.NewTimer(s.r.o.Timeout)
	defer timer.Stop()
	done := make(chan struct{})
	for ask := s.hurry; ; ask = nil {
		select {
		case ask <- done:
		case <-done:
			return nil
		case <-timer.C:
			return nil // it goes on behind
		case <-ctx.Done():
			return ctx.Err()
		case <-s.r.life.Done():
			return registry.ErrClosed
		}
	}
}

// hold lets the member hold the door from the next round on, and reports whether it did not so far.
func (s *seeker) hold() (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = !s.holding
	s.holding = true
	return first
}

// round tries every seed that is no member, and some of those that were lost. It reports whether all are well.
func (s *seeker) round() bool {
	seeds := s.r.o.Seeds
	errs := make([]error, len(seeds))
	var trying sync.WaitGroup
	for i, seed := range seeds {
		trying.Go(func() {
			if errs[i] = s.seed(seed); errs[i] == nil && s.r.table.others() > 0 {
				s.begun()
			}
		})
	}
	lost := s.missing()
	for _, addr := range lost[:min(len(lost), lostAtOnce)] {
		trying.Go(func() { s.find(addr) })
	}
	trying.Wait()
	var trouble error
	alone := false
	for i, err := range errs {
		switch {
		case err == nil:
		case errors.Is(err, errNobody):
			alone = true
		default:
			err = s.explain(seeds[i], err)
			if trouble == nil || errors.Is(err, &status.Error{Code: status.Unauthenticated}) {
				trouble = err
			}
		}
	}
	if slices.Contains(errs, nil) {
		trouble = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = trouble
	return !alone && !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) && len(s.lost) == 0
}

// errNobody: no process of this machine has the door.
var errNobody = errors.New("nobody is there")

// seed meets the member at one of a seed's addresses.
func (s *seeker) seed(seed string) error {
	host, port, _ := net.SplitHostPort(seed)
	number, _ := strconv.ParseUint(port, 10, 16)
	ctx, cancel := context.WithTimeout(s.r.life, resolveTime)
	defer cancel()
	ips, err := resolve(ctx, host)
	if err != nil {
		return err
	}
	for _, ip := range ips {
		one := s.meet(netip.AddrPortFrom(ip, uint16(number)))
		if one == nil {
			return nil
		}
		if !errors.Is(err, errNobody) {
			err = one
		}
	}
	return err
}

// meet meets the member at an address, unless it is one already.
func (s *seeker) meet(at netip.AddrPort) error {
	addr := at.String()
	near := loopback(at.Addr())
	s.mu.Lock()
	if near {
		s.near[at] = struct{}{}
	}
	recent := time.Since(s.met[addr]) < quietTime
	s.mu.Unlock()
	switch {
	case at.Port() == s.r.port && ours(at.Addr()), addr == s.r.addr, s.r.table.present(addr):
		return nil // it is this member, or one that is known
	case near && s.r.table.doorHeld(at.Port()):
		return nil
	case recent && s.r.table.others() > 0:
		return nil
	}
	err := s.try(addr)
	for until := time.Now().Add(doorGrace); near && refused(err) && s.early() && time.Now().Before(until); {
		if !retry.Pause(s.r.life, doorPace/2) {
			return err
		}
		err = s.try(addr)
	}
	if near && refused(err) {
		if err = s.openDoor(at); inUse(err) {
			err = s.try(addr) // somebody was faster
		}
	}
	return err
}

func (s *seeker) try(addr string) error {
	if err := s.r.network.meet(s.r.list, addr); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.met[addr] = time.Now()
	return nil
}

// early reports whether nobody was met so far, in the first round. A door that is closed then may be that of a process that was
// killed just now, for another one of its members to take.
func (s *seeker) early() bool {
	select {
	case <-s.first:
		return false
	default:
		return s.r.table.others() == 0
	}
}

// guard takes the door as soon as the process ends that has it. memberlist finds that out some seconds later, and meanwhile who
// comes would meet nobody. To try costs next to nothing, and sends nothing.
func (s *seeker) guard() {
	for retry.Pause(s.r.life, doorPace) {
		for _, at := range s.kept() {
			_ = s.openDoor(at) // it mostly is in use
		}
	}
}

// kept gives the seeds of this machine that other members have as their door, where this one is to hold it after them.
func (s *seeker) kept() (doors []netip.AddrPort) {
	s.mu.Lock()
	if s.holding && s.door == nil {
		doors = slices.Collect(maps.Keys(s.near))
	}
	s.mu.Unlock()
	return slices.DeleteFunc(doors, func(at netip.AddrPort) bool { return !s.r.table.doorHeld(at.Port()) })
}

// openDoor listens at a seed's address, so that others meet this member there, if it is to.
func (s *seeker) openDoor(at netip.AddrPort) error {
	s.mu.Lock()
	wanted := s.holding && s.door == nil && s.r.delegate.local && s.r.life.Err() == nil
	s.mu.Unlock()
	if !wanted {
		return errNobody
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.door != nil { // of another seed of this machine
		s.mu.Unlock()
		_ = l.Close()
		return errNobody
	}
	s.door = l
	s.mu.Unlock()
	s.doors.Go(func() { s.welcome(l) })
	s.r.table.holdDoor(at.Port())
	return nil
}

// welcome gives whoever comes by the door to memberlist.
func (s *seeker) welcome(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			_ = s.r.network.IngestStream(c) // it gives no error
		case errors.Is(err, net.ErrClosed) || !retry.Pause(s.r.life, roundPace): // else no file may be left for a moment
			return
		}
	}
}

// closeDoor ends the door, before the member's own end.
func (s *seeker) closeDoor() {
	s.mu.Lock()
	door := s.door
	s.mu.Unlock()
	if door != nil {
		_ = door.Close()
		s.doors.Wait()
	}
}

// miss notes that a member was lost. One that was closed is forgotten as soon as nobody answers at its address.
func (s *seeker) miss(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lost) < maxLost {
		s.lost[addr] = time.Now()
	}
	delete(s.met, addr)
}

// missing gives the addresses of lost members, in any order.
func (s *seeker) missing() (addrs []string) {
	s.mu.Lock()
	all := maps.Clone(s.lost)
	s.mu.Unlock()
	for addr, since := range all {
		if time.Since(since) > lostTime || s.r.table.present(addr) {
			s.forget(addr)
			continue
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

func (s *seeker) forget(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, addr)
}

// find looks for a lost member.
func (s *seeker) find(addr string) {
	if err := s.try(addr); err == nil || refused(err) {
		s.forget(addr)
	}
}

// explain gives the error of a seed in this package's terms.
func (s *seeker) explain(seed string, err error) error {
	why := text(err)
	if strings.Contains(strings.ToLower(why), "crypt") {
		hint := "its members have another key"
		switch {
		case len(s.r.o.Key) == 0:
			hint = "its members have a key: set " + EnvKey + ", or key-file"
		case strings.Contains(why, "is not encrypted"):
			hint = "its members have no key, and this one has"
		}
		return fmt.Errorf("registry: gossip %s: %w", seed, status.Wrap(err, status.Unauthenticated, "%s", hint))
	}
	if errors.Is(err, context.DeadlineExceeded) || strings.HasSuffix(why, "i/o timeout") {
		err = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	} else if !errors.As(err, new(syscall.Errno)) {
		err = errors.New(why)
	} else {
		err = errnoOf(err)
	}
	return fmt.Errorf("%w: %s is not answering: %w", registry.ErrUnavailable, seed, err)
}

func errnoOf(err error) error {
	var sys syscall.Errno
	errors.As(err, &sys)
	return sys
}

// problem says why what is known here may be next to nothing: nobody was met. A member with nodes of its own knows those.
func (s *seeker) problem(registering bool) error {
	s.mu.Lock()
	trouble, holding := s.trouble, s.holding
	s.mu.Unlock()
	switch {
	case trouble == nil || s.r.table.others() > 0:
		return nil
	case (registering || holding) && !errors.Is(trouble, &status.Error{Code: status.Unauthenticated}):
		return nil
	}
	return trouble
}

// judge tells the watches of a problem, or of its end.
func (s *seeker) judge() {
	if err := s.problem(false); err != nil {
		s.r.table.hub.Fail(err)
		return
	}
	s.r.table.hub.Mend()
}

// isLocal reports whether a host is this machine, by loopback.
func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && loopback(ip)
}
