package postfix

import "encoding/binary"

// An answer is an encoded policy: what replies need of it for every release of
// Postfix, so that an upgrade needs no new encoding. The constant parts of a value
// and the domain are not in it, and a pattern is in it once, as a rule in its line of
// the policy. That makes it a little longer than the policy, where a value with
// policy attributes is four times as long.
//
// The first byte says which values there are. Pieces follow: the lines of the
// policy in their order, and between them the patterns that they do not have as
// they are needed, so that the patterns are in their order, too.
type answer string

// appendForms appends the first byte: whether the policy can be enforced, and how
// much of the policy attributes fits with and without match=.
func appendForms(b []byte, enforce bool, with, alone extent) []byte {
	forms := byte(with)<<1 | byte(alone)<<3
	if enforce {
		forms |= 1
	}
	return append(b, forms)
}

// canEnforce reports whether there is a value that enforces the policy.
func (a answer) canEnforce() bool { return a[0]&1 != 0 }

// with and alone return how much of the policy attributes is sent with match= and
// without.
func (a answer) with() extent  { return extent(a[0] >> 1 & 3) }
func (a answer) alone() extent { return extent(a[0] >> 3 & 3) }

// The kinds of pieces.
const (
	otherLine    = iota // a line of which no pattern is taken
	mxLine              // beforeMX and a pattern, which match= has, too
	matchPattern        // a pattern that match= has, too
	otherPattern        // a pattern that match= does not have
)

// beforeMX is what nearly all lines have before a pattern.
const beforeMX = "mx: "

// appendPiece appends a piece: a number that has its length and kind, and its text.
func appendPiece(b []byte, kind int, text string) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)<<2|kind))
	return append(b, text...)
}

// piece returns the kind of the piece at i, and where its text begins and ends.
func (a answer) piece(i int) (kind, from, to int) {
	n := int(a[i])
	i++
	if n >= 0x80 {
		n, i = a.longNumber(i)
	}
	return n & 3, i, i + n>>2
}

// longNumber returns the number whose second byte is at i, and where it ends.
func (a answer) longNumber(i int) (n, end int) {
	n = int(a[i-1] & 0x7f)
	for shift := 7; ; shift += 7 {
		c := a[i]
		i++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			return n, i
		}
	}
}

// appendMatch appends the names of match= and what follows them.
func (a answer) appendMatch(b []byte) []byte {
	begin := len(b)
	for i := 1; i < len(a); {
		kind, from, to := a.piece(i)
		i = to
		switch kind {
		case otherLine, otherPattern:
			continue
		case mxLine:
			from += len(beforeMX)
		}
		if len(b) > begin {
			b = append(b, ':')
		}
		b = append(b, matchName(string(a[from:to]))...)
	}
	return append(b, afterMatch...)
}

// appendAttributes appends the policy attributes for a domain, which begin with a
// space.
func (a answer) appendAttributes(b []byte, domain string, e extent) []byte {
	b = append(b, beforeDomain...)
	b = append(b, domain...)
	for i := 1; i < len(a); {
		kind, from, to := a.piece(i)
		i = to
		switch kind {
		case otherLine:
			continue
		case mxLine:
			from += len(beforeMX)
		}
		b = append(b, beforePattern...)
		b = append(b, a[from:to]...)
	}
	for i := 1; i < len(a); {
		kind, from, to := a.piece(i)
		i = to
		if kind != otherLine && kind != mxLine {
			continue
		}
		b = append(b, beforeLine...)
		b = append(b, a[from:to]...)
		b = append(b, afterLine...)
		if e == firstLine {
			break
		}
	}
	return b
}
