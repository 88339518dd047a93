package dane

import (
	"testing"

	"stsmap/resolver"
)

// FuzzUsable checks that no record causes a panic, that a digest is usable exactly
// if its length is right, and that a usable certificate or key is unusable with a
// byte more or less.
func FuzzUsable(f *testing.F) {
	key := newEd25519(f)
	for _, data := range [][]byte{nil, make([]byte, 32), make([]byte, 64), marshal(f, key.Public()), selfSigned(f, key)} {
		for matching := range uint8(3) {
			f.Add(uint8(3), uint8(1), matching, data)
			f.Add(uint8(2), uint8(0), matching, data)
		}
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := resolver.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
		got := Usability(r) == nil
		known := (usage == 2 || usage == 3) && (selector == 0 || selector == 1)
		if !known || matching > 2 {
			if got {
				t.Errorf("%d %d %d is usable", usage, selector, matching)
			}
			return
		}
		if matching != 0 {
			if want := len(data) == 32*int(matching); got != want {
				t.Errorf("%d bytes with matching type %d: usable %v", len(data), matching, got)
			}
			return
		}
		if !got {
			return
		}
		r.Data = append(data[:len(data):len(data)], 0)
		if Usability(r) == nil {
			t.Errorf("still usable with another byte: %x", r.Data)
		}
		if r.Data = data[:len(data)-1]; Usability(r) == nil {
			t.Errorf("still usable without the last byte: %x", r.Data)
		}
	})
}
