package socketmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// ErrBadRequest is wrapped by the error of [Client.Do] for a request that cannot be sent: the map name is
// empty or contains a space, or name and key together are too long. Nothing was sent, and the client can
// still be used; the caller must correct the request.
var ErrBadRequest = errors.New("request cannot be sent")

// A ProtocolError is a malformed reply, or one that Postfix would not read as it is meant. It is a fault of
// the server; asking again does not help.
type ProtocolError struct {
	// Reason is what is wrong, for people.
	Reason string
}

// Error returns the reason after the words "malformed reply".
func (e *ProtocolError) Error() string { return "malformed reply: " + e.Reason }

// A Client asks a socketmap server. It is not safe for concurrent use.
//
// Unlike Postfix it does not connect again when the server has closed the connection.
type Client struct {
	nc  net.Conn
	buf []byte
	err error // why the connection cannot be used any more
}

// Reachable returns the address for Dial of a server on this host that listens on an address: the
// loopback address in place of an unspecified one.
func Reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || strings.HasPrefix(listen, "unix:") {
		return listen
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// Dial connects to "host:port", or to the Unix socket of "unix:/path". The context limits only the
// connecting. The errors are those of [net.Dialer].
func Dial(ctx context.Context, addr string) (*Client, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("socketmap: %w", err)
	}
	return &Client{nc: nc, buf: make([]byte, 512)}, nil
}

// Close closes the connection.
func (c *Client) Close() error {
	if c.err == nil {
		c.err = net.ErrClosed
	}
	return c.nc.Close()
}

// Do asks for a key in the map of that name, and waits for the reply until ctx is done. A status other
// than OK is no error.
//
// The errors wrap ErrBadRequest, the error of ctx, a [*ProtocolError], io.ErrUnexpectedEOF if the server
// closed the connection instead of answering, or those of the network. After any error but the first the
// connection is closed, because a late reply would be taken for the next one, and Do returns that error.
func (c *Client) Do(ctx context.Context, name, key string) (Reply, error) {
	request, err := appendRequest(nil, name, key)
	if err != nil {
		return Reply{}, fmt.Errorf("socketmap: %w", err)
	}
	if c.err == nil {
		var r Reply
		if r, c.err = c.exchange(ctx, request); c.err == nil {
			return r, nil
		}
		c.nc.Close()
	}
	return Reply{}, fmt.Errorf("socketmap: %w", c.err)
}

// appendRequest appends a request as a netstring.
func appendRequest(b []byte, name, key string) ([]byte, error) {
	size := len(name) + 1 + len(key)
	switch {
	case name == "":
		return nil, fmt.Errorf("%w: no map name", ErrBadRequest)
	case strings.Contains(name, " "):
		return nil, fmt.Errorf("%w: space in the map name %q", ErrBadRequest, name)
	case size > maxRequest:
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrBadRequest, size, maxRequest)
	}
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, ':')
	b = append(b, name...)
	b = append(b, ' ')
	b = append(b, key...)
	return append(b, ','), nil
}

// exchange sends the request and returns the reply.
func (c *Client) exchange(ctx context.Context, request []byte) (Reply, error) {
	if err := ctx.Err(); err != nil {
		return Reply{}, err
	}
	deadline, _ := ctx.Deadline() // the zero time means none, here and there
	if err := c.nc.SetDeadline(deadline); err != nil {
		return Reply{}, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.nc.SetDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted // or else the next exchange could be interrupted instead
		}
	}()

	reply, err := c.roundTrip(request)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err = context.Cause(ctx); err == nil {
			err = context.DeadlineExceeded // the connection's clock was a little faster
		}
	}
	return reply, err
}

// roundTrip writes the request, and reads and checks the reply. It is as strict as the server with requests,
// and as validate with replies.
func (c *Client) roundTrip(request []byte) (Reply, error) {
	if _, err := c.nc.Write(request); err != nil {
		return Reply{}, err
	}
	for n := 0; ; {
		payload, size, reason := cutNetstring(c.buf[:n], maxReply)
		switch {
		case reason != "":
			return Reply{}, &ProtocolError{Reason: reason}
		case payload != nil && n > size:
			return Reply{}, &ProtocolError{Reason: "more after the reply"}
		case payload != nil:
			return parseReply(string(payload))
		}
		if size > len(c.buf) {
			c.buf = append(make([]byte, 0, size), c.buf[:n]...)[:size]
		}
		got, err := c.nc.Read(c.buf[n:])
		n += got
		if got == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
	}
}

// parseReply parses the payload of a reply.
func parseReply(payload string) (Reply, error) {
	word, text, ok := strings.Cut(payload, " ")
	status, known := parseStatus(word)
	switch {
	case !known:
		return Reply{}, &ProtocolError{Reason: fmt.Sprintf("unknown status %.20q", word)}
	case !ok:
		return Reply{}, &ProtocolError{Reason: "no space after the status"}
	}
	if reason := validate(status, []byte(text)); reason != "" {
		return Reply{}, &ProtocolError{Reason: reason}
	}
	return Reply{Status: status, Text: text}, nil
}
