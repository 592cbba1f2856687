package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// This file reads a bbolt file by itself, from its bytes. bbolt trusts what it maps into memory: over a page that is not what it
// should be it panics, on goroutines of its own too, or leaves out what a damaged page does not tell of.

// DamageError says what is wrong with a file.
type DamageError struct {
	Path   string
	Offset int64 // of the page; 0 where it is not one page's matter
	What   string
}

func (e *DamageError) Error() string {
	at := ""
	if e.Offset > 0 {
		at = fmt.Sprintf(", at byte %d", e.Offset)
	}
	return fmt.Sprintf("registry: %s is damaged, or no registry's file%s: %s", e.Path, at, e.What)
}

// What bbolt's pages are made of, in the byte order of the machine that wrote them.
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	pageHead     = 16 // id 8, flags 2, count 2, overflow 4
	metaBytes    = 64 // magic, version, page size, flags: 4 each; root and its sequence, freelist, high-water mark, txid, checksum: 8 each
	elementBytes = 16 // of a leaf: flags, pos, ksize, vsize: 4 each; of a branch: pos, ksize: 4 each, page 8
	bucketBytes  = 16 // root, sequence
	flagBranch   = 1
	flagLeaf     = 2
	flagBucket   = 1 // of a leaf's element
	noFreelist   = 1<<64 - 1
	maxDepth     = 64
)

// meta is one of the two pages that say where the rest stands.
type meta struct{ pageSize, root, high, tx uint64 }

// reader reads a file's pages.
type reader struct {
	path string
	data []byte
	meta meta
	seen map[uint64]bool // pages
	bad  func(*DamageError) error
	torn bool // there was damage beyond single records: not all pages were found
}

// contents are what a file holds.
type contents struct {
	records []Record
	about   map[string][]byte
}

// readFile reads a file through. It gives a *DamageError unless all is as a Store left it.
func readFile(path string) (*contents, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return read(path, data)
}

func read(path string, data []byte) (*contents, error) {
	r := &reader{path: path, data: data, seen: map[uint64]bool{}, bad: func(e *DamageError) error { return e }}
	if err := r.metas(false); err != nil {
		return nil, err
	}
	c, err := r.contents()
	if err != nil {
		return nil, err
	}
	return c, r.whole(c)
}

// whole holds what was read against the number and the sum.
func (r *reader) whole(c *contents) error {
	if f, ok := c.about[string(formatKey)]; !ok || string(f) != format {
		return r.damage(0, "it holds %.40q where a registry's file says %q", f, format)
	}
	want, err := decodeSum(c.about[string(sumKey)])
	if err != nil {
		return r.damage(0, "%s", err)
	}
	var total sum
	for _, rec := range c.records {
		total.add([]byte(rec.ID), encode(rec))
	}
	if want != total {
		return r.damage(0, "it has %d records, and should have %d", total.count, want.count)
	}
	_, errEpoch := unseal(epochKey, c.about[string(epochKey)], epochBytes)
	_, errRun := unseal(runKey, c.about[string(runKey)], runBytes)
	if err := errors.Join(errEpoch, errRun); err != nil {
		return r.damage(0, "%s", err)
	}
	return nil
}

func (r *reader) damage(offset uint64, what string, args ...any) error {
	r.torn = true
	return r.bad(&DamageError{Path: r.path, Offset: int64(offset), What: fmt.Sprintf(what, args...)})
}

// metas reads the two meta pages. One that is wrong is damage, unless one is enough: bbolt would go back by a transaction without a word.
func (r *reader) metas(one bool) error {
	if len(r.data) == 0 {
		return &DamageError{Path: r.path, What: "it is empty"}
	}
	first, errFirst := parseMeta(r.data, 0)
	size := first.pageSize
	if errFirst != nil {
		size = uint64(os.Getpagesize())
	}
	second, errSecond := parseMeta(r.data, size)
	switch {
	case errFirst != nil && errSecond != nil:
		return &DamageError{Path: r.path, What: errFirst.Error()}
	case errFirst != nil && !one:
		return &DamageError{Path: r.path, What: errFirst.Error()}
	case errSecond != nil && !one:
		return &DamageError{Path: r.path, Offset: int64(size), What: errSecond.Error()}
	}
	r.meta = first
	if errFirst != nil || errSecond == nil && second.tx > first.tx {
		r.meta = second
	}
	if want := r.meta.high * r.meta.pageSize; !one && uint64(len(r.data)) < want {
		return &DamageError{Path: r.path, Offset: int64(len(r.data)), What: fmt.Sprintf("it ends here, and should have %d bytes at least", want)}
	}
	return nil
}

func parseMeta(data []byte, at uint64) (meta, error) {
	if at+pageHead+metaBytes > uint64(len(data)) {
		return meta{}, errors.New("it is too short to be a bbolt file")
	}
	b := data[at+pageHead:]
	if binary.NativeEndian.Uint32(b) != boltMagic {
		return meta{}, errors.New("it is no bbolt file")
	}
	h := fnv.New64a()
	_, _ = h.Write(b[:metaBytes-8]) // it gives no error
	if binary.NativeEndian.Uint32(b[4:]) != boltVersion || binary.NativeEndian.Uint64(b[metaBytes-8:]) != h.Sum64() {
		return meta{}, errors.New("its meta page: " + errChecksum.Error())
	}
	m := meta{pageSize: uint64(binary.NativeEndian.Uint32(b[8:])), root: binary.NativeEndian.Uint64(b[16:]),
		high: binary.NativeEndian.Uint64(b[40:]), tx: binary.NativeEndian.Uint64(b[48:])}
	if m.pageSize < 512 || m.pageSize > 1<<20 || m.pageSize&(m.pageSize-1) != 0 || m.high > 1<<40 {
		return meta{}, errors.New("its meta page makes no sense")
	}
	return m, nil
}

// contents reads all buckets. Where bad gives nil, what is wrong is left out.
func (r *reader) contents() (*contents, error) {
	c := &contents{about: map[string][]byte{}}
	err := r.pages(r.meta.root, span{}, 0, func(at uint64, flags uint32, bucket, value []byte) error {
		if flags&flagBucket == 0 || len(value) < bucketBytes {
			return r.damage(at, "an entry that is no bucket")
		}
		each := func(at uint64, flags uint32, key, value []byte) error {
			switch {
			case flags != 0:
				return r.damage(at, "a bucket in a bucket")
			case bytes.Equal(bucket, aboutBucket):
				c.about[string(key)] = value
			case bytes.Equal(bucket, nodesBucket):
				rec, err := decode(key, value)
				if err != nil {
					torn := r.torn
					err = r.damage(at, "the record of %.100q: %s", key, err)
					r.torn = torn
					return err
				}
				c.records = append(c.records, rec)
			default:
				return r.damage(at, "a bucket %.40q, which is no registry's", bucket)
			}
			return nil
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			return r.pages(root, span{}, 0, each)
		}
		return r.page(value[bucketBytes:], at, 0, span{}, 0, each) // it stands inline
	})
	return c, err
}

// span is what keys are in: from the first on, and before the second, unless that is nil.
type span struct{ from, before []byte }

func (s span) has(key []byte) bool {
	return bytes.Compare(key, s.from) >= 0 && (s.before == nil || bytes.Compare(key, s.before) < 0)
}

// pages reads a page, with those below it, and gives the elements of its leaves.
func (r *reader) pages(id uint64, keys span, depth int, each func(at uint64, flags uint32, key, value []byte) error) error {
	at := id * r.meta.pageSize
	switch {
	case id < 2 || id >= r.meta.high || at+pageHead > uint64(len(r.data)):
		return r.damage(0, "page %d is named, and there is none", id)
	case depth > maxDepth:
		return r.damage(at, "its pages are nested too deep")
	}
	over := uint64(binary.NativeEndian.Uint32(r.data[at+12:]))
	end := at + (over+1)*r.meta.pageSize
	if binary.NativeEndian.Uint64(r.data[at:]) != id || id+over >= r.meta.high || end > uint64(len(r.data)) {
		return r.damage(at, "page %d is another, or not whole", id)
	}
	for p := id; p <= id+over; p++ {
		if r.seen[p] {
			return r.damage(at, "page %d is named twice", p)
		}
		r.seen[p] = true
	}
	return r.page(r.data[at:end], at, id, keys, depth, each)
}

// page reads the elements of a page, which stands at an offset of the file.
func (r *reader) page(b []byte, at, id uint64, keys span, depth int, each func(at uint64, flags uint32, key, value []byte) error) error {
	if len(b) < pageHead {
		return r.damage(at, "a page without a head")
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), uint64(binary.NativeEndian.Uint16(b[10:]))
	if flags != flagLeaf && (flags != flagBranch || id == 0) || pageHead+count*elementBytes > uint64(len(b)) {
		return r.damage(at, "page %d is of no kind that stands here", id)
	}
	elements := make([]element, count)
	for i := range elements {
		e := uint64(pageHead) + uint64(i)*elementBytes
		el := &elements[i]
		pos, ksize, vsize := word(b[e:]), word(b[e+4:]), uint64(0)
		if flags == flagLeaf {
			el.flags = uint32(pos)
			pos, ksize, vsize = ksize, word(b[e+8:]), word(b[e+12:])
		} else {
			el.page = binary.NativeEndian.Uint64(b[e+8:])
		}
		from := e + pos
		if from+ksize+vsize > uint64(len(b)) {
			return r.damage(at, "element %d of page %d passes its end", i, id)
		}
		el.key, el.value = b[from:from+ksize], b[from+ksize:from+ksize+vsize]
		if i > 0 && bytes.Compare(elements[i-1].key, el.key) >= 0 || !keys.has(el.key) {
			return r.damage(at, "the keys of page %d are not in order", id)
		}
	}
	for i, el := range elements {
		err := error(nil)
		if flags == flagLeaf {
			err = each(at, el.flags, el.key, el.value)
		} else {
			below := span{el.key, keys.before}
			if i+1 < len(elements) {
				below.before = elements[i+1].key
			}
			err = r.pages(el.page, below, depth+1, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// element is of a page: a key, with its value or with the page where those that follow it stand.
type element struct {
	flags      uint32
	key, value []byte
	page       uint64
}

func word(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b)) }

// Salvage makes a new file of the records that can still be read of a damaged one, which keeps standing beside it under
// the name that is given. It gives how many there are. Where pages cannot be found from the file's root, all that stand in the file are read: records
// that were changed or removed not long before may come back as they were, until their leases are over.
func Salvage(dir string) (records int, kept string, err error) {
	path := filepath.Join(dir, FileName)
	if db, err := bolt.Open(path, 0, &bolt.Options{Timeout: lockTime, ReadOnly: true}); err == nil {
		defer db.Close()
	} else if errors.Is(err, bolterrors.ErrTimeout) {
		return 0, "", fmt.Errorf("registry: %s: %w", path, ErrLocked)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, "", fmt.Errorf("registry: %w", err)
	}
	r := &reader{path: path, data: data, seen: map[uint64]bool{}, bad: func(*DamageError) error { return nil }}
	c := &contents{}
	if r.metas(true) == nil {
		c, _ = r.contents() // bad gives none
	} else {
		r.torn, r.meta.pageSize = true, uint64(os.Getpagesize())
	}
	good := unique(c.records)
	if r.torn {
		good = unique(append(good, agreed(r.scan())...))
	}
	kept = fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(path, kept); err != nil {
		return 0, "", fmt.Errorf("registry: %w", err)
	}
	return len(good), kept, create(path, good)
}

// scan gives the records of all pages that look like leaves, whether or not another page leads there. A page has no checksum, but each record
// has. Some pages are of before, and what they hold has changed, or gone, since.
func (r *reader) scan() (records []Record) {
	size := r.meta.pageSize
	for at := uint64(0); at+pageHead <= uint64(len(r.data)); at += size {
		b := r.data[at:]
		if binary.NativeEndian.Uint64(b) != at/size || binary.NativeEndian.Uint16(b[8:]) != flagLeaf {
			continue
		}
		end := min((word(b[12:])+1)*size, uint64(len(b))) // it may be cut off
		for i := range uint64(binary.NativeEndian.Uint16(b[10:])) {
			e := pageHead + i*elementBytes
			if e+elementBytes > end {
				break
			}
			from, ksize, vsize := e+word(b[e+4:]), word(b[e+8:]), word(b[e+12:])
			if word(b[e:]) != 0 || from+ksize+vsize > end {
				continue
			}
			if rec, err := decode(b[from:from+ksize], b[from+ksize:from+ksize+vsize]); err == nil {
				records = append(records, rec)
			}
		}
	}
	return records
}

// agreed leaves out records of an id that stands with several owners: the wrong one would keep the right one out until its lease is over.
func agreed(records []Record) []Record {
	owner, several := map[string][32]byte{}, map[string]bool{}
	for _, r := range records {
		if by, ok := owner[r.ID]; ok && by != r.Owner {
			several[r.ID] = true
		}
		owner[r.ID] = r.Owner
	}
	return slices.DeleteFunc(records, func(r Record) bool { return several[r.ID] })
}

// unique leaves out records whose id stands twice, as it may in a damaged file.
func unique(records []Record) []Record {
	seen := map[string]bool{}
	var out []Record
	for _, r := range records {
		if !seen[r.ID] {
			seen[r.ID] = true
			out = append(out, r)
		}
	}
	return out
}
