package cache

const slabChunk = 1024

// A slab is a list that grows at its end and never moves its elements. A slice
// would do, but for one thing: append copies all of it now and then, which for
// a million elements takes milliseconds, under a lock.
type slab[T any] struct {
	chunks []*[slabChunk]T
	n      int32
}

// at returns the element i, which must be below n; the pointer stays good.
func (s *slab[T]) at(i int32) *T {
	return &s.chunks[i/slabChunk][i%slabChunk]
}

// add appends v and returns its index.
func (s *slab[T]) add(v T) int32 {
	if int(s.n) == len(s.chunks)*slabChunk {
		s.chunks = append(s.chunks, new([slabChunk]T))
	}
	s.n++
	*s.at(s.n - 1) = v
	return s.n - 1
}

// pop drops the last element. Its chunk is kept for the next one.
func (s *slab[T]) pop() {
	s.n--
	var zero T
	*s.at(s.n) = zero
}
