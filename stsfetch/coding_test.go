package stsfetch

import "testing"

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
