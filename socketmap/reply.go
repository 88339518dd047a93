package socketmap

import (
	"context"
	"encoding/binary"
	"strconv"
	"unicode/utf8"
)

// A Status is the first word of a reply. Its zero value is OK.
type Status uint8

// The statuses of util/dict_sockmap.c. Postfix's SMTP client treats the last three alike: it defers the
// mail.
const (
	OK       Status = iota // OK is for a key that was found; the text is its value.
	NotFound               // NotFound is for a key that is not in the map.
	Temp                   // Temp is for a lookup that failed and may succeed later.
	Timeout                // Timeout is for a lookup that took too long.
	Perm                   // Perm is for a lookup that will fail again.
)

// String returns the status as it is sent: "OK", "NOTFOUND", "TEMP", "TIMEOUT" or "PERM".
func (s Status) String() string {
	switch s {
	case OK:
		return "OK"
	case NotFound:
		return "NOTFOUND"
	case Temp:
		return "TEMP"
	case Timeout:
		return "TIMEOUT"
	case Perm:
		return "PERM"
	}
	return "Status(" + strconv.Itoa(int(s)) + ")"
}

// parseStatus is the inverse of [Status.String]. The words are case-sensitive, as in
// util/dict_sockmap.c.
func parseStatus(word string) (Status, bool) {
	for s := OK; s <= Perm; s++ {
		if s.String() == word {
			return s, true
		}
	}
	return 0, false
}

// A Request asks for the value of a key. Map is the name of the map, never empty and without spaces.
// Key is as Postfix sent it, in its case, and can contain any bytes. Both alias the connection's buffer
// and are valid only until the handler returns; a handler that keeps them copies them.
type Request struct {
	Map, Key []byte
}

// A Reply is the answer to a request. Its text is Text, followed by what More appends. If Status is OK,
// the text is the value and not empty. Otherwise it is a reason for people, which Postfix logs, and may
// be empty.
//
// The text must be valid UTF-8 without control characters (bytes below 0x20, and 0x7f), and with the
// status and the space not longer than 100000 bytes. [Server] sends no other text.
type Reply struct {
	Status Status
	Text   string
	// More appends the rest of the text; nil if Text is all of it. A server lets it append to the
	// output buffer, so that a text made for each reply needs no allocation.
	More Appender
}

// An Appender is a part of a text. AppendTo appends it to b and returns the extended slice; it must not
// keep b. It is called after the handler has returned, when the request is no longer valid. A pointer
// as an Appender needs no allocation.
type Appender interface {
	AppendTo(b []byte) []byte
}

// WithText returns r with the whole text in Text, for callers that read it.
func (r Reply) WithText() Reply {
	if r.More == nil {
		return r
	}
	return Reply{Status: r.Status, Text: string(r.appendText(nil))}
}

// appendText appends the text.
func (r Reply) appendText(b []byte) []byte {
	b = append(b, r.Text...)
	if r.More != nil {
		b = r.More.AppendTo(b)
	}
	return b
}

// A Handler answers requests. ServeSocketmap is called from one goroutine per connection, and so must be
// safe for concurrent use.
//
// The context is cancelled when the server has to stop at once, and a handler must then return soon.
// It is not cancelled when the client closes the connection, so that the result of a lookup is not lost:
// Postfix asks again. A handler must return well before the 100 seconds for which Postfix waits
// (util/dict_sockmap.c); the server sets no limit.
type Handler interface {
	ServeSocketmap(ctx context.Context, r Request) Reply
}

// A HandlerFunc is a function that is a [Handler].
type HandlerFunc func(context.Context, Request) Reply

// ServeSocketmap calls f.
func (f HandlerFunc) ServeSocketmap(ctx context.Context, r Request) Reply { return f(ctx, r) }

// validate returns why a reply must not be sent, or an empty string if it may.
//
// It is the last check before a reply is sent, and a reply that fails it is a bug of the handler. The
// text contains parts of strangers' policies, and one that breaks Postfix's parser or its connection
// defers mail to more domains than the stranger's own. OK without a text is rejected by Postfix itself
// (global/maps.c), with a message that does not name the cause. C1 controls (U+0080 to U+009F) pass:
// Postfix accepts them.
func validate(s Status, text []byte) string {
	if s > Perm {
		return "unknown status"
	}
	if s == OK && len(text) == 0 {
		return "OK without a text"
	}
	if len(s.String())+1+len(text) > maxReply {
		return "longer than " + strconv.Itoa(maxReply) + " bytes"
	}
	if isPlain(text) {
		return ""
	}
	for _, c := range text { // bytes rather than runes, since C1 controls pass
		if c < 0x20 || c == 0x7f {
			return "control character in the text"
		}
	}
	if !utf8.Valid(text) {
		return "text is not UTF-8"
	}
	return ""
}

// isPlain reports whether text is ASCII without control characters. Every reply
// passes here, so it takes eight bytes at a time: the highest bit of a byte is set if
// it is not ASCII, or is 0x7f and 1 is added, and is not set if the byte is below 0x20
// and 0x60 is added. No byte carries into the next one, but from one that is not ASCII.
func isPlain(text []byte) bool {
	const each = 0x0101010101010101
	var found uint64
	for ; len(text) >= 8; text = text[8:] {
		x := binary.LittleEndian.Uint64(text)
		found |= x | (x + each) | ^(x + 0x60*each)
	}
	for _, c := range text {
		if c < 0x20 || c >= 0x7f {
			return false
		}
	}
	return found&(0x80*each) == 0
}

// A replyBuffer holds a reply that is being written.
type replyBuffer struct {
	b     []byte
	start int // of the netstring in b, which has room for a longer length before it
}

// lengthRoom is the size of the longest length of a netstring, with its colon.
const lengthRoom = len("100000:")

// encode makes the netstring of r, or returns why r must not be sent. The space is always there, also
// before an empty text: Postfix manages without it, but socketmap_table(5) does not allow that.
func (o *replyBuffer) encode(r Reply) (reason string) {
	b := append(o.b[:0], "100000:"...)
	b = append(b, r.Status.String()...)
	b = append(b, ' ')
	text := len(b)
	b = r.appendText(b)
	if reason := validate(r.Status, b[text:]); reason != "" {
		return reason
	}
	o.start = lengthRoom - 1
	for n := len(b) - lengthRoom; n > 0; n /= 10 {
		o.start--
		b[o.start] = byte('0' + n%10)
	}
	o.b = append(b, ',')
	return ""
}

// netstring returns the netstring that encode made.
func (o *replyBuffer) netstring() []byte { return o.b[o.start:] }

// newInternalError returns the reply that replaces one that is missing or must not be sent.
func newInternalError() *replyBuffer {
	out := new(replyBuffer)
	out.encode(Reply{Status: Temp, Text: "internal error"})
	return out
}
