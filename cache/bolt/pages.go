package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
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
	metaFlag    = 0x04
	freeFlag    = 0x10
	metaSize    = 64
	bucketFlag  = 0x01 // of an element of a leaf
	bucketSize  = 16   // root, 8 bytes; sequence, 8; an inline page follows root 0

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
	free     uint64 // page with the list of free pages
	pages    uint64 // how many pages there are
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
	m = pageMap{b: b, pageSize: uint64(e.Uint32(meta[8:])), root: e.Uint64(meta[16:]),
		free: e.Uint64(meta[32:]), pages: e.Uint64(meta[40:]), txid: e.Uint64(meta[48:])}
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

// overflow is how many pages a page continues on; 0 if p is not there.
func overflow(p []byte) uint64 {
	if p == nil {
		return 0
	}
	return uint64(binary.NativeEndian.Uint32(p[12:]))
}

// child is the page that an element of a branch leads to.
func child(p []byte, i int) uint64 {
	return binary.NativeEndian.Uint64(p[pageHeader+i*elementSize+8:])
}

// bucket is the name of the bucket in an element of a leaf, its root page, and, if
// that is 0, the leaf page in the element that it has instead.
func bucket(p []byte, i int) (name string, root uint64, inline []byte) {
	e, element := binary.NativeEndian, p[pageHeader+i*elementSize:]
	key, size := element[e.Uint32(element[4:]):], e.Uint32(element[8:])
	if size > maxKey {
		panic("a key is too long")
	}
	value := key[size:][:e.Uint32(element[12:])]
	name, root = string(key[:size]), e.Uint64(value)
	if root == 0 {
		inline = value[bucketSize:]
		if e.Uint16(inline[8:]) != leafFlag {
			panic("an inline page is not a leaf")
		}
	}
	return name, root, inline
}

// checkElements checks the elements of a page, which has to begin with the key
// first, if not nil. bbolt trusts them when it writes the page again. flags are
// those that elements of a leaf must have.
func checkElements(p []byte, first []byte, flags uint32) error {
	e, last := binary.NativeEndian, []byte(nil)
	isLeaf := e.Uint16(p[8:]) == leafFlag
	for i := range count(p) {
		at := pageHeader + i*elementSize
		element := p[at:]
		pos, keySize, valueSize := uint64(e.Uint32(element)), uint64(e.Uint32(element[4:])), uint64(0)
		if isLeaf {
			pos, keySize, valueSize = uint64(e.Uint32(element[4:])), uint64(e.Uint32(element[8:])), uint64(e.Uint32(element[12:]))
		}
		if pos+keySize+valueSize > uint64(len(element)) || keySize == 0 || isLeaf && e.Uint32(element) != flags {
			return fmt.Errorf("%w: element %d is damaged", errNoDatabase, i)
		}
		key := element[pos:][:keySize]
		if i == 0 && first != nil && !bytes.Equal(key, first) || i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("%w: key %d is not in order", errNoDatabase, i)
		}
		last = key
	}
	return nil
}

// A link is how a branch leads to a page: that begins with the key.
type link struct {
	id  uint64
	key []byte // nil: the page of a root
}

// links returns those of a branch. bbolt follows the first one without looking at
// the count.
func links(p []byte) (all []link) {
	for i := range max(1, count(p)) {
		element := p[pageHeader+i*elementSize:]
		all = append(all, link{child(p, i), element[binary.NativeEndian.Uint32(element):][:binary.NativeEndian.Uint32(element[4:])]})
	}
	return all
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
				name, root, _ := bucket(p, i)
				roots[name] = root
			}
		}
	}
	return roots, nil
}

// checkSize returns errNoDatabase if the file has fewer pages than its header
// says. It reads only the header.
func (m pageMap) checkSize() error {
	if inFile := uint64(len(m.b)) / m.pageSize; m.pages > inFile {
		return fmt.Errorf("%w: %d pages of %d are missing", errNoDatabase, m.pages-inFile, m.pages)
	}
	return nil
}

// checkPages returns errNoDatabase if bbolt cannot use the file without harm.
// Every page must have one use: be in one tree, at one place, or be free. bbolt
// recurses on a branch that leads to itself until its stack overflows, which no
// recover catches, or loops without end. Keys must be in order, because bbolt
// makes such a branch when it writes pages whose keys are not.
//
// A page that is lost as a whole makes bbolt panic, and costs only its own
// entries; checkPages skips it. It reads all keys, level by level, in the order
// of the file.
func (m pageMap) checkPages() error {
	if err := m.checkSize(); err != nil {
		return err
	}
	u := pageUses{m, make([]bool, m.pages)}
	level, err := u.roots()
	for depth := 0; err == nil && len(level) > 0; depth++ {
		if depth == maxDepth {
			return fmt.Errorf("%w: pages lead to each other without end", errNoDatabase)
		}
		level, err = u.level(level)
	}
	return err
}

// pageUses are the pages that have a use.
type pageUses struct {
	pageMap
	used []bool
}

// add marks a page and the next ones as used.
func (u pageUses) add(id, more uint64) error {
	if id >= u.pages || more >= u.pages-id || slices.Contains(u.used[id:id+more+1], true) {
		return fmt.Errorf("%w: page %d has two uses, or none", errNoDatabase, id)
	}
	for i := range more + 1 {
		u.used[id+i] = true
	}
	return nil
}

// tree marks a page of a tree as used, checks it, and returns its links.
func (u pageUses) tree(l link, leafFlags uint32) ([]link, error) {
	p, flags := u.page(l.id)
	if p == nil {
		return nil, u.add(l.id, 0)
	}
	if err := u.add(l.id, overflow(p)); err != nil {
		return nil, err
	}
	p = p[:(overflow(p)+1)*u.pageSize]
	if flags != branchFlag && flags != leafFlag {
		if flags == metaFlag || flags == freeFlag { // bbolt takes them for branches
			return nil, fmt.Errorf("%w: page %d is in a tree", errNoDatabase, l.id)
		}
		return nil, nil
	}
	if err := checkElements(p, l.key, leafFlags); err != nil {
		return nil, fmt.Errorf("page %d: %w", l.id, err)
	}
	if flags == leafFlag {
		return nil, nil
	}
	return links(p), nil
}

// level marks and checks the pages of a level, and returns those of the next.
func (u pageUses) level(level []link) (next []link, err error) {
	slices.SortFunc(level, func(a, b link) int { return cmp.Compare(a.id, b.id) })
	for _, l := range level {
		children, err := u.tree(l, 0)
		if err != nil {
			return nil, err
		}
		next = append(next, children...)
	}
	return next, nil
}

// roots marks and checks the metas, the free pages and the pages of the root
// bucket, and returns the root pages of the buckets in it.
func (u pageUses) roots() (roots []link, err error) {
	seen := make(map[uint64]bool)
	if _, err := u.buckets(seen); err != nil {
		return nil, err
	}
	if err := u.add(0, 1); err != nil {
		return nil, err
	}
	for id := range seen {
		if _, err := u.tree(link{id, nil}, bucketFlag); err != nil {
			return nil, err
		}
		p, flags := u.page(id)
		for i := range count(p) {
			if flags != leafFlag {
				break
			}
			_, root, inline := bucket(p, i)
			if root != 0 {
				roots = append(roots, link{root, nil})
			} else if err := checkElements(inline, nil, 0); err != nil {
				return nil, err
			}
		}
	}
	return roots, u.addFree()
}

// addFree marks the list of free pages and those on it as used.
func (u pageUses) addFree() error {
	p, flags := u.page(u.free)
	if flags != freeFlag {
		return fmt.Errorf("%w: page %d is not the list of free pages", errNoDatabase, u.free)
	}
	err := u.add(u.free, overflow(p))
	e, ids := binary.NativeEndian, p[pageHeader:]
	n := uint64(count(p))
	if n == math.MaxUint16 { // the number is in the first element then
		n, ids = e.Uint64(ids), ids[8:]
	}
	for i := uint64(0); i < n && err == nil; i++ {
		err = u.add(e.Uint64(ids[i*8:]), 0)
	}
	return err
}
