package stsfetch

import (
	"runtime"
	"testing"
)

// TestGunzip: the limit is that of the decoded policy, to the byte.
func TestGunzip(t *testing.T) {
	const maxSize = 4096
	body, err := gunzip([]byte(bomb(t, maxSize)), maxSize)
	if err != nil || len(body) != maxSize {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if body, err = gunzip([]byte(bomb(t, maxSize+1)), maxSize); err == nil || body != nil {
		t.Errorf("one byte more: %d bytes, %v", len(body), err)
	}
}

// TestGunzipBomb: no more is decoded than the limit needs.
func TestGunzipBomb(t *testing.T) {
	const size, maxSize = 10 << 20, 4096
	coded := []byte(bomb(t, size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := gunzip(coded, maxSize)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("a bomb is decoded")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > size/10 {
		t.Errorf("allocated %d bytes for a policy of at most %d", n, maxSize)
	}
}
