package stsfetch

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxHeader limits the header of a response together with the framing of its
	// body, in bytes: the sizes and extensions of chunks, and trailers. The owner of
	// a domain chooses its policy host, so nothing that it sends is unbounded.
	maxHeader = 32 << 10
	// maxInformational limits the informational responses (1xx) before the response.
	maxInformational = 16
)

// errInformational is the error of readFinal for too many informational responses.
var errInformational = errors.New("too many informational responses")

// newRequest returns the request for the policy of host.
//
// Neither conditional headers nor anything else that a cache could act upon
// is sent (RFC 8461, Section 3.3), and no coding is offered, so that the size
// on the wire is the size of the policy.
func newRequest(host, userAgent string) *http.Request {
	return &http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: "https", Host: host, Path: "/.well-known/mta-sts.txt"},
		Host:   host,
		Header: http.Header{"User-Agent": {userAgent}, "Accept": {"text/plain"}, "Accept-Encoding": {"identity"}},
		Close:  true,
	}
}

// exchange asks host for its policy over conn and returns the decoded body, and
// whether only the end of the connection told where it ends. The status is
// recorded in p.
//
// Once the answer is decided, nothing more is read from conn, whatever the
// host still sends: the caller must close conn.
func exchange(conn net.Conn, host, userAgent string, maxSize int, p *Probe) (body []byte, toEOF bool, err error) {
	request := newRequest(host, userAgent)
	if err := request.Write(conn); err != nil {
		return nil, false, stepErr(StepHTTP, err)
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := readFinal(bufio.NewReaderSize(limited, 2048), request)
	switch {
	case errors.Is(err, errInformational):
		return nil, false, stepErrf(StepTooLarge, "more than %d informational responses (1xx)", maxInformational)
	case err != nil && limited.N <= 0:
		return nil, false, stepErrf(StepTooLarge, "header is larger than %d bytes", maxHeader)
	case err != nil && limited.N == maxHeader:
		return nil, false, &stepError{StepHTTP, err, "no response", "malformed response: "}
	case err != nil:
		return nil, false, &stepError{StepHTTP, err, "header is incomplete", "malformed response: "}
	}
	// Body is never closed: Close reads the rest of the body, as for a
	// connection that is used again, and a hostile body has no end.
	limited.N += int64(maxSize)
	p.Status = resp.StatusCode
	if err := checkResponse(resp); err != nil {
		return nil, false, err
	}
	gzipped, err := isGzip(resp.Header)
	if err != nil {
		return nil, false, err
	}
	body, err = readBody(resp, maxSize)
	if err != nil && limited.N <= 0 {
		err = stepErrf(StepTooLarge, "policy has more than %d bytes with its chunks", maxSize)
	}
	if err == nil && gzipped {
		body, err = gunzip(body, maxSize)
	}
	return body, resp.ContentLength < 0 && len(resp.TransferEncoding) == 0, err
}

// readFinal reads responses to request until one is not informational.
func readFinal(r *bufio.Reader, request *http.Request) (*http.Response, error) {
	for range maxInformational + 1 {
		resp, err := http.ReadResponse(r, request)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errInformational
}

// checkResponse checks the header of a response (RFC 8461, Section 3.3).
func checkResponse(resp *http.Response) error {
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified:
		return stepErrf(StepRedirect, "HTTP status %d redirects to %.100q, which MTA-STS forbids to follow",
			resp.StatusCode, resp.Header.Get("Location"))
	case resp.StatusCode != http.StatusOK:
		return stepErrf(StepStatus, "HTTP status is %d, not 200", resp.StatusCode)
	}
	// Only type and subtype count. Parameters are ignored, even broken ones,
	// and the body is UTF-8 whatever they say; mime.ParseMediaType would
	// refuse what the RFC wants ignored.
	contentType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	contentType = strings.Trim(contentType, " \t")
	switch {
	case contentType == "":
		// RFC 8461 only recommends the check. Strict all the same: a page
		// that does not say what it is was not put there as a policy.
		return stepErrf(StepContentType, "response has no Content-Type, text/plain is needed")
	case !strings.EqualFold(contentType, "text/plain"):
		return stepErrf(StepContentType, "Content-Type is %.64q, not text/plain", contentType)
	}
	return nil
}

// readBody returns the whole body or fails.
func readBody(resp *http.Response, maxSize int) ([]byte, error) {
	if resp.ContentLength > int64(maxSize) {
		return nil, stepErrf(StepTooLarge, "policy has %d bytes, more than %d", resp.ContentLength, maxSize)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(maxSize)+1))
	switch {
	case err != nil:
		return nil, &stepError{StepHTTP, err, "policy is incomplete", "policy ended early: "}
	case len(body) > maxSize:
		return nil, stepErrf(StepTooLarge, "policy has more than %d bytes", maxSize)
	}
	return body, nil
}
