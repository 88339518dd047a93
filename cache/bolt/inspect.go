package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// ErrForeign is returned by Open and Inspect for a file that is not a store of
// stsmap, such as another program's database. Nothing about the file was
// changed. The operator sets another path, or moves the file away.
var ErrForeign = errors.New("not a store of stsmap")

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
)

// Inspect reports what Open with the same options would say to the file at
// path, without locking it or opening it for writing: nil for a store of stsmap
// (also if it is damaged, or in use), an empty file, and no file; ErrForeign for
// any other. Another error means that the file could not be read.
func Inspect(path string, o Options) error {
	_, err := inspect(path, o)
	return err
}

// inspect is Inspect. The file is ours if it may be set aside.
func inspect(path string, o Options) (ours bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, fmt.Errorf("%s: %w: %w", path, ErrForeign, syscall.EISDIR)
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: %w: not a regular file", path, ErrForeign)
	}
	// Not to be kept waiting by a FIFO that has just been put there.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ours, err = identify(f)
	switch damaged := errors.Is(err, errNoDatabase); {
	case damaged && o.Own && !isLink(path):
		return true, nil
	case damaged:
		return false, fmt.Errorf("%s: %w: %w", path, ErrForeign, err)
	default:
		return ours, err
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// identify reports whether a file is a database with our buckets. For one with
// others the error is ErrForeign, for one without any and an empty file nil, and
// for any other file errNoDatabase.
func identify(f *os.File) (ours bool, err error) {
	const attempts = 10
	for attempt := 1; ; attempt++ {
		info, err := f.Stat()
		if err != nil || info.Size() == 0 {
			return false, err
		}
		d, err := readMeta(f, info.Size())
		if err != nil {
			return false, err
		}
		names, err := d.bucketNames()
		if err == nil && len(names) > 0 && !hasOurs(names) {
			err = fmt.Errorf("%s: %w: a bbolt database with the buckets %q", f.Name(), ErrForeign, names[:min(len(names), 5)])
		}
		if err == nil || attempt == attempts {
			return err == nil && len(names) > 0, err
		}
		// A process that writes may have used the pages for others meanwhile.
		if again, metaErr := readMeta(f, info.Size()); metaErr == nil && again.txid == d.txid {
			return false, err
		}
	}
}

func hasOurs(names []string) bool {
	for _, name := range []string{bucketMeta, bucketEntries, bucketDue} {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// A disk is a bbolt file as its valid meta describes it. Reading it trusts
// nothing: a page is read with ReadAt, and what it says is held against bounds.
type disk struct {
	r        io.ReaderAt
	pageSize uint64
	root     uint64 // page of the root bucket
	pages    uint64 // how many there are
	txid     uint64
}

// readMeta finds the meta that counts. Its error is errNoDatabase, or that of
// reading the file.
func readMeta(f *os.File, size int64) (disk, error) {
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
	return disk{}, err
}

// onlyRead drops an error that is not one of reading.
func onlyRead(err error) error {
	if errors.Is(err, errNoDatabase) {
		return nil
	}
	return err
}

func parseMeta(f *os.File, at int64) (disk, error) {
	var b [pageHeader + metaSize]byte
	if err := readFull(f, b[:], at); err != nil {
		return disk{}, err
	}
	m, e := b[pageHeader:], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	d := disk{r: f, pageSize: uint64(e.Uint32(m[8:])), root: e.Uint64(m[16:]), pages: e.Uint64(m[40:]), txid: e.Uint64(m[48:])}
	switch {
	case e.Uint32(m) != boltMagic:
		return disk{}, fmt.Errorf("%w: it does not begin like one", errNoDatabase)
	case e.Uint32(m[4:]) != boltVersion:
		return disk{}, fmt.Errorf("%w: unknown version %d", errNoDatabase, e.Uint32(m[4:]))
	case e.Uint64(m[56:]) != sum.Sum64(), d.pageSize < minPageSize, d.pageSize > maxPageSize, d.pageSize&(d.pageSize-1) != 0:
		return disk{}, fmt.Errorf("%w: its first pages are damaged", errNoDatabase)
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
func (d disk) page(id uint64) (diskPage, error) {
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
// to, which means something in branches only. It ends at one that is no good.
func (p diskPage) elements(yield func(key []byte, child uint64) bool) {
	e := binary.NativeEndian
	for i := range int(e.Uint16(p[10:])) {
		at := pageHeader + i*elementSize
		if at+elementSize > len(p) {
			return
		}
		pos, ksize, child := uint64(e.Uint32(p[at:])), uint64(e.Uint32(p[at+4:])), e.Uint64(p[at+8:])
		if p.flags() == leafFlag {
			pos, ksize = uint64(e.Uint32(p[at+4:])), uint64(e.Uint32(p[at+8:]))
		}
		from := uint64(at) + pos
		if from+ksize > uint64(len(p)) || !yield(p[from:from+ksize], child) {
			return
		}
	}
}

// bucketNames returns the keys of the root bucket.
func (d disk) bucketNames() ([]string, error) {
	var names []string
	seen := make(map[uint64]bool)
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
			p.elements(func(key []byte, _ uint64) bool { names = append(names, string(key)); return true })
		default:
			return nil, fmt.Errorf("%w: page %d is damaged", errNoDatabase, id)
		}
	}
	return names, nil
}
