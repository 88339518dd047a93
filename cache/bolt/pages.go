package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
)

// errNoDatabase marks a file that is not a bbolt database, or one too damaged
// to tell whose it is.
var errNoDatabase = errors.New("no readable bbolt database")

// The layout of a bbolt file, as far as it is read here. The first two pages
// are metas, of which the valid one with the higher transaction counts. A
// bucket is a tree of branch and leaf pages; the leaves of the root bucket have
// the names of the others as keys.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader  = 16 // id, 8 bytes; flags, 2; count, 2; overflow, 4
	elementSize = 16
	branchFlag  = 0x01
	leafFlag    = 0x02
	metaSize    = 64

	maxKey = 32 << 10
	// maxRootPages limits how many pages with names of buckets are read.
	maxRootPages = 1 << 10
	// maxDepth is more levels than a tree of 2⁴⁸ pages has.
	maxDepth = 48
)

// A pageMap is a bbolt file in memory. Reading it panics where the file is
// damaged or cannot be read; see readPages.
type pageMap struct {
	b        []byte
	pageSize uint64
	root     uint64 // page of the root bucket
	txid     uint64
}

// readPages calls f with the pages of a file that is not empty. Its error is
// errNoDatabase if they are not those of a database, or f panics.
func readPages(file *os.File, f func(pageMap) error) (err error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	b, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	defer syscall.Munmap(b)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if what := recover(); what != nil {
			if err = readThrough(file.Name()); err == nil {
				err = fmt.Errorf("%w: %v", errNoDatabase, what)
			}
		}
	}()
	m, ok := metaAt(b, 0)
	second := uint64(os.Getpagesize())
	if ok {
		second = m.pageSize
	}
	if other, otherOK := metaAt(b, second); otherOK && (!ok || other.txid > m.txid) {
		m, ok = other, true
	}
	if !ok {
		return fmt.Errorf("%w: it does not begin like one", errNoDatabase)
	}
	return f(m)
}

// metaAt reads the meta of the page that begins at an offset.
func metaAt(b []byte, at uint64) (m pageMap, ok bool) {
	if at+pageHeader+metaSize > uint64(len(b)) {
		return pageMap{}, false
	}
	meta, e := b[at+pageHeader:][:metaSize], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(meta[:metaSize-8])
	m = pageMap{b: b, pageSize: uint64(e.Uint32(meta[8:])), root: e.Uint64(meta[16:]), txid: e.Uint64(meta[48:])}
	return m, e.Uint32(meta) == boltMagic && e.Uint32(meta[4:]) == boltVersion && e.Uint64(meta[56:]) == sum.Sum64() && m.pageSize > 0
}

// page returns a page, to the end of the file, and its flags; zero if the page
// is not there.
func (m pageMap) page(id uint64) (p []byte, flags uint16) {
	if id >= uint64(len(m.b))/m.pageSize {
		return nil, 0
	}
	p = m.b[id*m.pageSize:]
	if binary.NativeEndian.Uint64(p) != id {
		return nil, 0
	}
	return p, binary.NativeEndian.Uint16(p[8:])
}

// count is how many elements a page has.
func count(p []byte) int { return int(binary.NativeEndian.Uint16(p[10:])) }

// child is the page that an element of a branch leads to.
func child(p []byte, i int) uint64 {
	return binary.NativeEndian.Uint64(p[pageHeader+i*elementSize+8:])
}

// bucket is the name of the bucket in an element of a leaf, and its root page; 0
// stands for one that has no page of its own.
func bucket(p []byte, i int) (name string, root uint64) {
	e, element := binary.NativeEndian, p[pageHeader+i*elementSize:]
	key, size := element[e.Uint32(element[4:]):], e.Uint32(element[8:])
	if size > maxKey {
		panic("a key is too long")
	}
	return string(key[:size]), e.Uint64(key[size:])
}

// buckets returns the names of the buckets and their root pages, and marks the
// pages that it has read as seen.
func (m pageMap) buckets(seen map[uint64]bool) (map[string]uint64, error) {
	roots := make(map[string]uint64)
	for queue := []uint64{m.root}; len(queue) > 0; queue = queue[1:] {
		p, flags := m.page(queue[0])
		if seen[queue[0]] || len(seen) == maxRootPages || flags != branchFlag && flags != leafFlag {
			return nil, fmt.Errorf("%w: page %d is damaged", errNoDatabase, queue[0])
		}
		seen[queue[0]] = true
		for i := range count(p) {
			if flags == branchFlag {
				queue = append(queue, child(p, i))
			} else {
				name, root := bucket(p, i)
				roots[name] = root
			}
		}
	}
	return roots, nil
}

// checkTrees returns errNoDatabase if two pages of the buckets lead to the same
// page, such as a branch that leads to itself. bbolt recurses on such a page
// until its stack overflows, which no recover catches, or loops without end.
// Pages that are damaged in another way make bbolt panic, and only their own
// entries are lost; checkTrees skips them. It reads the header of every page,
// level by level, in the order of the file.
func (m pageMap) checkTrees() error {
	seen := make(map[uint64]bool)
	roots, err := m.buckets(seen)
	if err != nil {
		return err
	}
	visited := make([]bool, uint64(len(m.b))/m.pageSize)
	for id := range seen {
		visited[id] = true
	}
	var level []uint64
	for _, root := range roots {
		if root != 0 {
			level = append(level, root)
		}
	}
	for depth := 0; len(level) > 0; depth++ {
		if depth == maxDepth {
			return fmt.Errorf("%w: pages lead to each other without end", errNoDatabase)
		}
		slices.Sort(level)
		var next []uint64
		for _, id := range level {
			p, flags := m.page(id)
			if p == nil {
				continue
			}
			if visited[id] {
				return fmt.Errorf("%w: two pages lead to page %d", errNoDatabase, id)
			}
			visited[id] = true
			if flags == branchFlag {
				// As bbolt does it: it follows the first element without looking at
				// the count.
				for i := range max(1, count(p)) {
					next = append(next, child(p, i))
				}
			}
		}
		level = next
	}
	return nil
}
