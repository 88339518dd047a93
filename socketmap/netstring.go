package socketmap

import (
	"bytes"
	"strconv"
)

// The limits of the payload of a netstring, in bytes: what socketmap_table(5) allows for a request,
// and util/dict_sockmap.c for a reply.
const (
	maxRequest = 10000
	maxReply   = 100000
)

// frame reads the length of the netstring at the start of b. It returns where in b the payload
// begins, and the length of the whole netstring with its comma. Both are 0 if b ends too early to
// tell, in which case it is at most as long as the digits of limit. The reason is not empty if b cannot
// be the start of a netstring of 1 to limit bytes, however it goes on.
//
// The length has to be canonical. Postfix writes no leading zeros and reads them (netstring.c); here
// they are malformed, because no client sends them by accident, and because a length that
// can be written in only one way cannot be read in two. The empty netstring, "0:,", is malformed, too:
// neither a request nor a reply can be empty.
func frame(b []byte, limit int) (start, size int, reason string) {
	n := 0
	for i, c := range b {
		switch {
		case c == ':' && i > 0:
			return i + 1, i + 1 + n + 1, ""
		case c < '0' || c > '9':
			return 0, 0, "not a netstring"
		case c == '0' && n == 0:
			return 0, 0, "empty, or length with leading zeros"
		}
		if n = n*10 + int(c-'0'); n > limit {
			return 0, 0, "longer than " + strconv.Itoa(limit) + " bytes"
		}
	}
	return 0, 0, ""
}

// cutNetstring returns the payload of the netstring at the start of b. If b does not hold all of it yet,
// payload is nil, and size is its length if that is known already, and otherwise 0.
func cutNetstring(b []byte, limit int) (payload []byte, size int, reason string) {
	start, size, reason := frame(b, limit)
	if reason != "" || size == 0 || len(b) < size {
		return nil, size, reason
	}
	if b[size-1] != ',' {
		return nil, 0, "no comma after the payload"
	}
	return b[start : size-1], size, ""
}

// parseRequest returns the request at the start of b, which it aliases, and its size, with the meaning
// of cutNetstring: the request has a Map only if b holds all of it.
//
// The map's name ends at the first space; the key is all the rest, and may contain anything, even
// spaces, and may be empty, which Postfix never sends (global/maps.c). The name may not be empty:
// Postfix does not even open such a map.
func parseRequest(b []byte) (r Request, size int, reason string) {
	payload, size, reason := cutNetstring(b, maxRequest)
	if payload == nil {
		return Request{}, size, reason
	}
	i := bytes.IndexByte(payload, ' ')
	if i <= 0 {
		return Request{}, 0, "no map name"
	}
	return Request{Map: payload[:i:i], Key: payload[i+1 : len(payload) : len(payload)]}, size, ""
}
