package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// errNoDatabase marks a file that is not a bbolt database, or one too damaged
// to tell whose it is.
var errNoDatabase = errors.New("no readable bbolt database")

// The layout of a bbolt file, as far as it is read here. The first two pages
// are metas, of which the valid one with the higher transaction counts. A
// bucket is a tree of branch and leaf pages; the root bucket has the names of
// the others as keys.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader  = 16 // id, 8 bytes; flags, 2; count, 2; overflow, 4
	elementSize = 16
	branchFlag  = 0x01
	leafFlag    = 0x02
	metaSize    = 64

	minPageSize = 1 << 10
	maxPageSize = 1 << 24
	// maxRootPages limits how many pages with names of buckets are read.
	maxRootPages = 1 << 10
	// maxDepth is more than a tree of 2⁴⁸ pages has levels.
	maxDepth = 48
)

// A pageFile is a bbolt file as its valid meta describes it. Reading it trusts
// nothing: a page is read with ReadAt, and what it says is held against bounds.
type pageFile struct {
	r        io.ReaderAt
	pageSize uint64
	root     uint64 // page of the root bucket
	pages    uint64 // how many there are
	txid     uint64
}

// readMeta finds the meta that counts. Its error is errNoDatabase, or that of
// reading the file.
func readMeta(f *os.File, size int64) (pageFile, error) {
	first, err := parseMeta(f, 0)
	if err == nil {
		second, err := parseMeta(f, int64(first.pageSize))
		if err == nil && second.txid > first.txid {
			return second, nil
		}
		return first, onlyRead(err)
	}
	// The size of a page is not known then, and so is the place of the other.
	for at := int64(minPageSize); onlyRead(err) == nil && at <= maxPageSize && at < size; at *= 2 {
		second, secondErr := parseMeta(f, at)
		if readErr := onlyRead(secondErr); secondErr == nil || readErr != nil {
			return second, readErr
		}
	}
	return pageFile{}, err
}

// onlyRead drops an error that is not one of reading.
func onlyRead(err error) error {
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	return err
}

func parseMeta(f *os.File, at int64) (pageFile, error) {
	var b [pageHeader + metaSize]byte
	if err := readFull(f, b[:], at); err != nil {
		return pageFile{}, err
	}
	m, e := b[pageHeader:], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	d := pageFile{r: f, pageSize: uint64(e.Uint32(m[8:])), root: e.Uint64(m[16:]), pages: e.Uint64(m[40:]), txid: e.Uint64(m[48:])}
	switch {
	case e.Uint32(m) != boltMagic:
		return pageFile{}, fmt.Errorf("%w: it does not begin like one", errNoDatabase)
	case e.Uint32(m[4:]) != boltVersion:
		return pageFile{}, fmt.Errorf("%w: unknown version %d", errNoDatabase, e.Uint32(m[4:]))
	case e.Uint64(m[56:]) != sum.Sum64(), d.pageSize < minPageSize, d.pageSize > maxPageSize, d.pageSize&(d.pageSize-1) != 0:
		return pageFile{}, fmt.Errorf("%w: its first pages are damaged", errNoDatabase)
	}
	return d, nil
}

// readFull reads all of b. A file that ends before is no database.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends early", errNoDatabase)
	}
	return err
}

// A diskPage is the contents of one, with its header.
type diskPage []byte

func (p diskPage) flags() uint16 { return binary.NativeEndian.Uint16(p[8:]) }

// page reads a page and those that it continues on.
func (d pageFile) page(id uint64) (diskPage, error) {
	broken := fmt.Errorf("%w: page %d is damaged", errNoDatabase, id)
	const maxBytes = 1 << 24
	if id < 2 || id >= d.pages || id >= (1<<62)/d.pageSize {
		return nil, broken
	}
	p := make(diskPage, d.pageSize)
	if err := readFull(d.r, p, int64(id*d.pageSize)); err != nil {
		return nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(p[12:]))
	if binary.NativeEndian.Uint64(p) != id || more >= d.pages-id || (more+1)*d.pageSize > maxBytes {
		return nil, broken
	}
	if more == 0 {
		return p, nil
	}
	p = make(diskPage, (more+1)*d.pageSize)
	return p, readFull(d.r, p, int64(id*d.pageSize))
}

// elements yields the key of each element of a page, and the page that it leads
// to: the child of a branch, the root of a bucket. It ends at an invalid one.
func (p diskPage) elements(yield func(key []byte, to uint64) bool) {
	e := binary.NativeEndian
	for i := range int(e.Uint16(p[10:])) {
		at := pageHeader + i*elementSize
		if at+elementSize > len(p) {
			return
		}
		pos, ksize, to := uint64(e.Uint32(p[at:])), uint64(e.Uint32(p[at+4:])), e.Uint64(p[at+8:])
		if p.flags() == leafFlag {
			pos, ksize, to = uint64(e.Uint32(p[at+4:])), uint64(e.Uint32(p[at+8:])), 0
		}
		from := uint64(at) + pos
		if from+ksize > uint64(len(p)) {
			return
		}
		if p.flags() == leafFlag && from+ksize+8 <= uint64(len(p)) {
			to = e.Uint64(p[from+ksize:])
		}
		if !yield(p[from:from+ksize], to) {
			return
		}
	}
}

// buckets returns the names of the buckets and their root pages; 0 stands for
// one that has no page of its own. seen gets the pages that were read.
func (d pageFile) buckets(seen map[uint64]bool) (map[string]uint64, error) {
	roots := make(map[string]uint64)
	for queue := []uint64{d.root}; len(queue) > 0; queue = queue[1:] {
		id := queue[0]
		if seen[id] || len(seen) == maxRootPages {
			return nil, fmt.Errorf("%w: page %d is damaged", errNoDatabase, id)
		}
		seen[id] = true
		p, err := d.page(id)
		if err != nil {
			return nil, err
		}
		switch p.flags() {
		case branchFlag:
			p.elements(func(_ []byte, child uint64) bool { queue = append(queue, child); return true })
		case leafFlag:
			p.elements(func(key []byte, root uint64) bool { roots[string(key)] = root; return true })
		default:
			return nil, fmt.Errorf("%w: page %d is damaged", errNoDatabase, id)
		}
	}
	return roots, nil
}

// checkTrees returns errNoDatabase if the trees of the buckets are none: if a
// page can be reached on two ways, such as a branch that leads to itself. bbolt
// recurses on them, until its stack overflows, which no recover catches, or goes
// round for ever. Pages that are damaged in another way make it panic, and only
// cost what is on them; they are passed over here. It reads the header of every
// page, level by level and in the order of the file.
func (d pageFile) checkTrees(size int64) error {
	known := make(map[uint64]bool)
	roots, err := d.buckets(known)
	if err != nil {
		return err
	}
	inFile := uint64(size) / d.pageSize
	seen := make([]bool, inFile)
	for id := range known {
		seen[id] = true // below inFile, for it was read
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
			if id >= inFile {
				continue
			}
			if seen[id] {
				return fmt.Errorf("%w: two pages lead to page %d", errNoDatabase, id)
			}
			seen[id] = true
			if next, err = d.appendChildren(next, id); err != nil {
				return err
			}
		}
		level = next
	}
	return nil
}

// appendChildren appends the pages that bbolt would go to from a page. It does
// not look where the page ends, and takes the first element for granted.
func (d pageFile) appendChildren(to []uint64, id uint64) ([]uint64, error) {
	e := binary.NativeEndian
	header := make([]byte, pageHeader)
	if err := readFull(d.r, header, int64(id*d.pageSize)); err != nil || e.Uint64(header) != id || e.Uint16(header[8:]) != branchFlag {
		return to, onlyRead(err)
	}
	elements := make([]byte, elementSize*max(1, int(e.Uint16(header[10:]))))
	if err := readFull(d.r, elements, int64(id*d.pageSize)+pageHeader); err != nil {
		return to, onlyRead(err)
	}
	for at := 0; at < len(elements); at += elementSize {
		to = append(to, e.Uint64(elements[at+8:]))
	}
	return to, nil
}
