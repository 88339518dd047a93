package main

import (
	"runtime/debug"
	"testing"
)

// TestHeap: what is let go is held until it is given back.
func TestHeap(t *testing.T) {
	debug.FreeOSMemory()
	before, _ := heap()
	large := make([]byte, 64<<20)
	for i := range large {
		large[i] = 1
	}
	if _, held := heap(); held < before+64<<20 {
		t.Errorf("%d bytes are held, of which 64 MiB were just taken", held)
	}
	large = nil
	debug.FreeOSMemory()
	if live, held := heap(); held > live+live/2+16<<20 || live > before+16<<20 {
		t.Errorf("%d bytes are held and %d live after they were given back, %d before", held, live, before)
	}
}
