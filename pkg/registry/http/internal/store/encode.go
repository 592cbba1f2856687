package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"sync"
	"time"
)

// The file's buckets, and the keys of the second.
var (
	nodesBucket = []byte("nodes") // records by id
	aboutBucket = []byte("about")

	formatKey = []byte("format")
	epochKey  = []byte("epoch")
	sumKey    = []byte("sum")
	runKey    = []byte("run")
)

const (
	format     = "micro registry 1"
	epochBytes = 16
	headBytes  = 4 + 8 + 32 // of a record: checksum, ttl, owner
	sumBytes   = 8 + 8
	runBytes   = 8
)

var errChecksum = errors.New("its checksum is wrong")

// castagnoli is made when it is first needed: it would cost each start of the command a fifth of a millisecond.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// encode gives a record as it stands under its id: the checksum of all else and of the id, the ttl, the owner, the node.
func encode(r Record) []byte {
	value := make([]byte, headBytes, headBytes+len(r.Node))
	binary.BigEndian.PutUint64(value[4:], uint64(r.TTL))
	copy(value[12:], r.Owner[:])
	value = append(value, r.Node...)
	binary.BigEndian.PutUint32(value, checksum([]byte(r.ID), value[4:]))
	return value
}

// decode reads a record. It keeps neither of its arguments.
func decode(key, value []byte) (Record, error) {
	if len(value) < headBytes || binary.BigEndian.Uint32(value) != checksum(key, value[4:]) {
		return Record{}, errChecksum
	}
	r := Record{ID: string(key), TTL: time.Duration(binary.BigEndian.Uint64(value[4:])), Node: append([]byte(nil), value[headBytes:]...)}
	copy(r.Owner[:], value[12:])
	return r, nil
}

func checksum(key, rest []byte) uint32 {
	table := castagnoli()
	return crc32.Update(crc32.Checksum(key, table), table, rest)
}

// sum is of all records: their number, and the sum of their hashes. It tells that one is missing.
type sum struct{ count, hash uint64 }

func (s *sum) add(key, value []byte)    { s.count++; s.hash += hash(key, value) }
func (s *sum) remove(key, value []byte) { s.count--; s.hash -= hash(key, value) }

func hash(key, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key) // it gives no error
	_, _ = h.Write(value)
	return h.Sum64()
}

func (s *sum) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.count)
	return seal(sumKey, binary.BigEndian.AppendUint64(b, s.hash))
}

func decodeSum(b []byte) (sum, error) {
	b, err := unseal(sumKey, b, sumBytes)
	if err != nil {
		return sum{}, err
	}
	return sum{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

// seal gives a value of the second bucket with its checksum.
func seal(key, b []byte) []byte { return binary.BigEndian.AppendUint32(b, checksum(key, b)) }

// unseal gives back what was sealed, of so many bytes.
func unseal(key, b []byte, size int) ([]byte, error) {
	if len(b) != size+4 || binary.BigEndian.Uint32(b[size:]) != checksum(key, b[:size]) {
		return nil, fmt.Errorf("the field %q: %w", key, errChecksum)
	}
	return b[:size], nil
}
