package socketmap

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func dialClient(t *testing.T, l net.Listener) *Client {
	t.Helper()
	addr := l.Addr().String()
	if l.Addr().Network() == "unix" {
		addr = "unix:" + addr
	}
	c, err := Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// What the server answers the client returns, and what cannot be asked leaves the connection as it is.
func TestClient(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		l := listen(t, network)
		start(t, &Server{Handler: HandlerFunc(obey)}, l)
		c := dialClient(t, l)
		for _, x := range []struct {
			name, key string
			want      Reply
			bad       bool
		}{
			{"OK", "secure", Reply{Status: OK, Text: "secure"}, false},
			{"NOTFOUND", "", Reply{Status: NotFound, Text: ""}, false},
			{"TEMP", "a b  c", Reply{Status: Temp, Text: "a b  c"}, false},
			{"TIMEOUT", "größe", Reply{Status: Timeout, Text: "größe"}, false},
			{"PERM", "x", Reply{Status: Perm, Text: "x"}, false},
			{"", "x", Reply{}, true},
			{"a b", "x", Reply{}, true},
			{"OK", strings.Repeat("x", 9998), Reply{}, true},
			{"OK", strings.Repeat("x", 9997), Reply{Status: OK, Text: strings.Repeat("x", 9997)}, false},
			{"big", "99997", Reply{Status: OK, Text: strings.Repeat("x", 99997)}, false},
			{"big", "99998", Reply{Status: Temp, Text: "internal error"}, false},
			{"OK", "last", Reply{Status: OK, Text: "last"}, false},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			got, err := c.Do(ctx, x.name, x.key)
			cancel()
			if got != x.want || errors.Is(err, ErrBadRequest) != x.bad || (err != nil) != x.bad {
				t.Errorf("%s: Do(%q, %.20q): %.40v, %v", network, x.name, x.key, got, err)
			}
		}
	}
}

// serveText answers the first request of each connection to the listener with text, and closes it.
func serveText(t *testing.T, text string) net.Listener {
	l := listen(t, "tcp")
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.Read(make([]byte, 100))
			io.WriteString(nc, text)
			nc.Close()
		}
	}()
	return l
}

// The client is as strict as Postfix, and stricter where Postfix would go out of step (conformance D3-5).
func TestClientMalformedReply(t *testing.T) {
	for text, reason := range map[string]string{
		"x":                              "not a netstring",
		"0:,":                            "empty, or length with leading zeros",
		"09:NOTFOUND ,":                  "empty, or length with leading zeros",
		"100001:OK":                      "longer than 100000 bytes",
		"9:NOTFOUND ;":                   "no comma after the payload",
		"8:NOTFOUND,":                    "no space after the status",
		"3:OK ,":                         "OK without a text",
		"3:ok x,":                        "no comma after the payload",
		"4:ok x,":                        `unknown status "ok"`,
		"5:OK \x00x,":                    "control character in the text",
		"4:OK \xff,":                     "text is not UTF-8",
		"9:NOTFOUND ,9:NOTFOUND ,":       "more after the reply",
		"30:FREQUENTLYASKEDQUESTIONS ab": "",
		"9:NOTFO":                        "",
		"":                               "",
	} {
		c := dialClient(t, serveText(t, text))
		_, err := c.Do(t.Context(), "map", "key")
		perr, ok := errors.AsType[*ProtocolError](err)
		if reason == "" {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: %v, want an unexpected end", text, err)
			}
		} else if !ok || perr.Reason != reason {
			t.Errorf("%q: %v, want %s", text, err, reason)
		}
		if _, again := c.Do(t.Context(), "map", "key"); again == nil || again.Error() != err.Error() {
			t.Errorf("%q: the next request: %v", text, again)
		}
	}
}

// A context ends the wait, and with it the connection: a late reply must not be taken for the next one.
func TestClientContext(t *testing.T) {
	g := newGate()
	l := listen(t, "unix")
	start(t, &Server{Handler: g}, l)

	c := dialClient(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-g.entered; cancel() }()
	if _, err := c.Do(ctx, "map", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.Do(t.Context(), "map", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("after that: %v", err)
	}

	c = dialClient(t, l)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, "map", "c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	close(g.release)

	c = dialClient(t, l)
	for range 100 { // a context that ends right after the reply does not concern the next request
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		if r, err := c.Do(ctx, "map", "d"); err != nil || r.Status != NotFound {
			t.Fatalf("%v, %v", r, err)
		}
		cancel()
		<-g.entered
	}
	c.Close()
	if _, err := c.Do(t.Context(), "map", "e"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	for _, addr := range []string{"unix:" + t.TempDir() + "/none", "127.0.0.1", "unix:"} {
		if c, err := Dial(t.Context(), addr); err == nil {
			c.Close()
			t.Errorf("%q: connected", addr)
		} else if _, ok := errors.AsType[*net.OpError](err); !ok {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestStatusString(t *testing.T) {
	for s := OK; s <= Perm; s++ {
		if got, ok := parseStatus(s.String()); !ok || got != s {
			t.Errorf("%d: %v, %v", s, got, ok)
		}
	}
	if got := (Perm + 1).String(); got != "Status(5)" {
		t.Error(got)
	}
}
