package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// statusPath is where a Status is. The version in it changes if a name in the
// JSON is taken away or given another meaning.
const statusPath = "/v1/status"

// NewPrivate returns what answers on the control socket. Who may connect there
// may know everything, and later change things: it asks for no password.
// status is called for each request, concurrently.
func NewPrivate(status func() Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error means that the client has gone.
		_ = json.NewEncoder(w).Encode(status())
	})
	return mux
}

// A Client asks a daemon over its control socket. It may be used concurrently.
type Client struct{ http http.Client }

// mostAnswer bounds what is read of an answer, in bytes.
const mostAnswer = 16 << 20

// NewClient returns a Client for the UNIX-domain socket at path. It does not
// connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks how the daemon is. The error is that of the connection, such as
// fs.ErrPermission or syscall.ECONNREFUSED, or tells that the answer is none.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, statusPath, &s)
	return s, err
}

// get reads the JSON at path into value.
func (c *Client) get(ctx context.Context, path string, value any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stsmap"+path, nil)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err // without a URL that nobody has typed
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is answered %s", path, answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, mostAnswer)).Decode(value); err != nil {
		return fmt.Errorf("%s is answered with what is no JSON: %w", path, err)
	}
	return nil
}
