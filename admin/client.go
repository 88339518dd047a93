package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
)

// ErrUnknown is returned by Show for a domain that is not cached.
var ErrUnknown = errors.New("nothing is known of it")

// ErrGarbled is in the errors of a Client whose request was answered, but not
// as a daemon of the same release answers. The caller must report that, and not
// that the daemon is down.
var ErrGarbled = errors.New("not the answer of a daemon of this release")

// A Client asks a daemon over its control socket. It may be used concurrently.
//
// The errors of its methods are those of the connection, such as
// fs.ErrPermission or syscall.ECONNREFUSED, or ErrGarbled, or a *Refusal.
type Client struct{ http http.Client }

// A Refusal is why the daemon did not do what it was asked.
type Refusal struct{ Reason string }

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

// maxAnswer bounds what is read of an answer that is one value, in bytes.
const maxAnswer = 16 << 20

// NewClient returns a Client for the UNIX-domain socket at path. It does not
// connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 16}}}
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.value(ctx, http.MethodGet, statusPath, nil, &s)
	return s, err
}

// ReadOverrides has the daemon read the overrides again, and returns those in
// force then.
func (c *Client) ReadOverrides(ctx context.Context) (s OverridesStatus, err error) {
	err = c.value(ctx, http.MethodPost, readPath, nil, &s)
	return s, err
}

// Explain returns the reply to a lookup of key in the map of this name, and how
// the daemon arrives at it.
func (c *Client) Explain(ctx context.Context, mapName, key string) (e Explanation, err error) {
	err = c.value(ctx, http.MethodGet, explainPath+"?"+url.Values{"key": {key}, "map": {mapName}}.Encode(), nil, &e)
	return e, err
}

// Show returns the cached record of the policy domain of key, or ErrUnknown.
func (c *Client) Show(ctx context.Context, key string) (r Record, err error) {
	err = c.value(ctx, http.MethodGet, entryPath+"?"+url.Values{"key": {key}}.Encode(), nil, &r)
	return r, err
}

// Retrieve has the daemon fetch a domain and returns the record after that.
// With evenKnown it fetches in any case, otherwise only if no valid entry is
// cached.
func (c *Client) Retrieve(ctx context.Context, key string, evenKnown bool) (r Record, err error) {
	v := url.Values{"key": {key}}
	if !evenKnown {
		v.Set("known", "yes")
	}
	err = c.value(ctx, http.MethodPost, retrievePath+"?"+v.Encode(), nil, &r)
	return r, err
}

// Forget deletes the policy domain of a key from the cache.
func (c *Client) Forget(ctx context.Context, key string) error {
	var n forgotten
	return c.value(ctx, http.MethodDelete, entryPath+"?"+url.Values{"key": {key}}.Encode(), nil, &n)
}

// ForgetMany deletes the domains that match f, and returns their number.
func (c *Client) ForgetMany(ctx context.Context, f Filter) (int, error) {
	var n forgotten
	err := c.value(ctx, http.MethodDelete, cachePath+"?"+f.values().Encode(), nil, &n)
	return n.Domains, err
}

// Import has the daemon cache the records in r, one in JSON a line.
func (c *Client) Import(ctx context.Context, r io.Reader) (result Imported, err error) {
	err = c.value(ctx, http.MethodPost, importPath, r, &result)
	return result, err
}

// Stats counts the entries of the cache.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	err = c.value(ctx, http.MethodGet, statsPath, nil, &s)
	return s, err
}

// Table writes the replies for the domains with a policy or an override to w,
// as the source of a table for postmap(1). After an error w has only a part.
func (c *Client) Table(ctx context.Context, w io.Writer) error {
	answer, err := c.send(ctx, http.MethodGet, tablePath, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return err
	}
	if why := answer.Trailer.Get(errorTrailer); why != "" {
		return &Refusal{why}
	}
	return nil
}

// List iterates over the records that f means, in no particular order. An error
// is the last thing yielded.
func (c *Client) List(ctx context.Context, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		body, err := c.do(ctx, http.MethodGet, cachePath+"?"+f.values().Encode(), nil)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer body.Close()
		in := json.NewDecoder(bufio.NewReaderSize(body, 64<<10))
		for {
			// A line is a record, or a problem, which has no domain.
			var rec Record
			err := in.Decode(&rec)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				err = unread(cachePath, err)
			case rec.Domain == "":
				err = &Refusal{rec.Error}
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// value asks for one value.
func (c *Client) value(ctx context.Context, method, path string, body io.Reader, value any) error {
	answer, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if err := json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(value); err != nil {
		return unread(path, err)
	}
	return nil
}

// unread says why an answer cannot be read. Where the connection is to blame, or
// the time is over, it has that error only.
func unread(path string, err error) error {
	if _, network := errors.AsType[net.Error](err); network || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w: %w", path, ErrGarbled, err)
}

// do sends a request, and returns the body of the answer.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// send is do for a caller that reads the trailer too.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://stsmap"+path, body)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return nil, wrapped.Err // without a URL, which the user has not typed
	}
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxLine))
	var p problem
	if json.NewDecoder(bytes.NewReader(text)).Decode(&p) != nil || p.Error == "" {
		return nil, fmt.Errorf("%s: %w: %s", path, ErrGarbled, answer.Status)
	}
	if answer.StatusCode == http.StatusNotFound {
		return nil, ErrUnknown
	}
	return nil, &Refusal{p.Error}
}
