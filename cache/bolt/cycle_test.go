package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stsmap/cache/cachetest"
)

// branches returns the branch pages of a store's file that bbolt goes through,
// and the leaves.
func branches(t *testing.T, path string) (branches, leaves []uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = readPages(f, func(m pageMap) error {
		roots, err := m.buckets(make(map[uint64]bool))
		queue := []uint64{roots[bucketEntries], roots[bucketDue]}
		for ; len(queue) > 0; queue = queue[1:] {
			p, flags := m.page(queue[0])
			if flags != branchFlag {
				leaves = append(leaves, queue[0])
				continue
			}
			branches = append(branches, queue[0])
			for i := range count(p) {
				queue = append(queue, child(p, i))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return branches, leaves
}

// TestCycles: a file whose pages lead to each other without end is set aside if
// the last use did not end with Close.
// bbolt would end the process, or never return.
func TestCycles(t *testing.T) {
	good := written(t)
	path, page := newPath(t), os.Getpagesize()
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	inner, leaves := branches(t, path)
	if len(inner) < 2 || len(leaves) < 4 {
		t.Fatalf("the trees have the branches %v and the leaves %v", inner, leaves)
	}
	e := binary.NativeEndian
	bad := make(map[string][]byte)
	for _, id := range inner {
		b := bytes.Clone(good)
		p := b[int(id)*page:]
		for i := range int(e.Uint16(p[10:])) {
			e.PutUint64(p[pageHeader+i*elementSize+8:], id)
		}
		bad["a branch leads to itself "+fmt.Sprint(len(bad))] = b

		b = bytes.Clone(good)
		p = b[int(id)*page:]
		last := pageHeader + (int(e.Uint16(p[10:]))-1)*elementSize
		e.PutUint64(p[last+8:], id)
		bad["its last element "+fmt.Sprint(len(bad))] = b

		b = bytes.Clone(good)
		p = b[int(id)*page:]
		e.PutUint16(p[10:], 0)
		e.PutUint64(p[pageHeader+8:], id)
		bad["without elements "+fmt.Sprint(len(bad))] = b
	}
	for _, id := range leaves {
		b := bytes.Clone(good)
		p := b[int(id)*page:]
		e.PutUint16(p[8:], branchFlag)
		for i := range int(e.Uint16(p[10:])) {
			e.PutUint64(p[pageHeader+i*elementSize+8:], inner[0])
		}
		bad["a leaf leads back "+fmt.Sprint(len(bad))] = b
	}
	for name, content := range bad {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			writeMarked(t, path, content)
			s := mustOpen(t, path)
			aside, reason := s.SetAside()
			if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, content) || !strings.Contains(reason, "page") {
				t.Fatalf("set aside in %q for %q (%v)", aside, reason, err)
			}
			for i := range 200 {
				_, _ = s.Get(t.Context(), entry(i).Domain)
			}
			cachetest.Put(t, s, entry(1))
			if _, err := s.Due(t.Context(), time.Now().Add(48*time.Hour), time.Hour, 300); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWrongPointers: whatever page a pointer leads to, nothing ends the process
// or hangs, and no method returns a policy that was not put.
func TestWrongPointers(t *testing.T) {
	good := written(t)
	page := os.Getpagesize()
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		b := bytes.Clone(good)
		for range 1 + r.IntN(3) {
			// A child of a branch, a root of a bucket, or the sizes of a leaf's element.
			at := r.IntN(len(b)/page)*page + pageHeader + r.IntN(20)*elementSize + 8
			binary.NativeEndian.PutUint64(b[at:], uint64(r.IntN(len(b)/page+2)))
			if r.IntN(3) == 0 {
				b[at/page*page+8] = []byte{branchFlag, leafFlag}[r.IntN(2)]
			}
		}
		path := newPath(t)
		writeMarked(t, path, b)
		cachetest.Within(t, "the store", func() { usePage(t, path) })
	}
}

// TestDeepTree: a tree of more levels than any has, but without a cycle, would
// overflow a stack, too.
func TestDeepTree(t *testing.T) {
	const pageSize, levels = 1024, 100
	file := make([]byte, pageSize*(levels+5))
	e := binary.NativeEndian
	put := func(id int, flags uint16, to uint64) {
		p := file[id*pageSize:]
		e.PutUint64(p, uint64(id))
		e.PutUint16(p[8:], flags)
		e.PutUint16(p[10:], 1)
		element := p[pageHeader:]
		if element[elementSize] = 'x'; flags == branchFlag {
			e.PutUint32(element, elementSize)
			e.PutUint32(element[4:], 1)
			e.PutUint64(element[8:], to)
			return
		}
		e.PutUint32(element[4:], elementSize)
		e.PutUint32(element[8:], 1)
		if to != 0 { // in the root bucket
			e.PutUint32(element, bucketFlag)
			e.PutUint64(element[elementSize+1:], to)
		}
		e.PutUint32(element[12:], bucketSize)
	}
	put(2, leafFlag, 3)
	for i := range levels {
		put(3+i, branchFlag, uint64(4+i))
	}
	put(3+levels, leafFlag, 0)
	e.PutUint64(file[(levels+4)*pageSize:], levels+4)
	e.PutUint16(file[(levels+4)*pageSize+8:], freeFlag)
	m := pageMap{b: file, pageSize: pageSize, root: 2, free: levels + 4, pages: levels + 5}
	if err := m.checkPages(); err == nil {
		t.Error("the tree is accepted")
	}
	clear(file[(3+maxDepth-1)*pageSize:][:pageSize])
	put(3+maxDepth-1, leafFlag, 0)
	if err := m.checkPages(); err != nil {
		t.Errorf("one of %d levels: %v", maxDepth, err)
	}
}

// TestSoundTrees: no file that bbolt has written is taken for a damaged one,
// whatever was put and deleted in how many transactions, also when all was
// deleted.
func TestSoundTrees(t *testing.T) {
	s := mustOpen(t, newPath(t))
	db := s.file.Load().db
	db.NoSync = true
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	operate := func(tx *bbolt.Tx, size int) error {
		e := entry(r.IntN(size))
		old, _ := load(tx, e.Domain)
		e.Refresh = e.Refresh.Add(time.Duration(r.IntN(1000)-500) * time.Second)
		switch r.IntN(12) {
		case 0:
			e.Policy = strings.Repeat("x", r.IntN(64<<10))
		case 1, 2, 3, 4:
			return remove(tx, e.Domain)
		case 5: // from the first on
			c := entries(tx).Cursor()
			for k, _ := c.First(); k != nil && r.IntN(20) > 0; k, _ = c.First() {
				if err := remove(tx, string(k)); err != nil {
					return err
				}
			}
			return nil
		}
		return save(tx, old, e)
	}
	for round := range 400 {
		size := []int{3, 50, 5000}[round%3]
		err := db.Update(func(tx *bbolt.Tx) error {
			for range r.IntN(300) {
				if err := operate(tx, size); err != nil {
					return err
				}
			}
			c := entries(tx).Cursor()
			for k, _ := c.First(); round%50 == 49 && k != nil; k, _ = c.First() {
				if err := remove(tx, string(k)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := readPages(s.file.Load().file, pageMap.checkPages); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}
