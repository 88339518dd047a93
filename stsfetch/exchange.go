package stsfetch

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxHeader limits the header of a response together with the framing of its
// body, in bytes: the sizes and extensions of chunks, and trailers. The owner of a
// domain chooses its policy host, so nothing that it sends is unbounded.
const maxHeader = 32 << 10

// exchange asks host for its policy over conn and returns the body, and
// whether only the end of the connection told where it ends.
//
// Neither conditional headers nor anything else that a cache could act upon
// is sent (RFC 8461, Section 3.3), and no coding is offered, so that the size
// on the wire is the size of the policy. What was answered is noted in v.
//
// Once the answer is decided, nothing more is read from conn, whatever the
// host still sends: the caller must close conn.
func exchange(conn net.Conn, host, userAgent string, maxSize int, v *Visit) (body []byte, toEOF bool, err error) {
	request := "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: " + host +
		"\r\nUser-Agent: " + userAgent +
		"\r\nAccept: text/plain\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, false, at(StepHTTP, err)
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := readFinal(bufio.NewReaderSize(limited, 2048))
	if err != nil {
		if limited.N <= 0 {
			return nil, false, atf(StepTooLarge, "header is larger than %d bytes", maxHeader)
		}
		return nil, false, atf(StepHTTP, "malformed response: %w", err)
	}
	// Body is never closed: Close reads the rest of the body, as for a
	// connection that is used again, and a hostile body has no end.
	limited.N += int64(maxSize)
	v.Status = resp.StatusCode
	if err := acceptable(resp); err != nil {
		return nil, false, err
	}
	body, err = readBody(resp, maxSize)
	if err != nil && limited.N <= 0 {
		err = atf(StepTooLarge, "policy has more than %d bytes with its chunks", maxSize)
	}
	return body, resp.ContentLength < 0 && len(resp.TransferEncoding) == 0, err
}

// readFinal reads responses until one is not informational.
func readFinal(r *bufio.Reader) (*http.Response, error) {
	// A GET made by hand: ReadResponse needs only the method.
	get := &http.Request{Method: http.MethodGet}
	for {
		resp, err := http.ReadResponse(r, get)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// acceptable checks the header of a response (RFC 8461, Section 3.3).
func acceptable(resp *http.Response) error {
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified:
		return atf(StepRedirect, "HTTP status %d redirects to %.100q, which MTA-STS forbids to follow",
			resp.StatusCode, resp.Header.Get("Location"))
	case resp.StatusCode != http.StatusOK:
		return atf(StepStatus, "HTTP status is %d, not 200", resp.StatusCode)
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return atf(StepHTTP, "response is coded as %.64q although no coding was accepted", coding)
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
		return atf(StepContentType, "response has no Content-Type, text/plain is needed")
	case !strings.EqualFold(contentType, "text/plain"):
		return atf(StepContentType, "Content-Type is %.64q, not text/plain", contentType)
	}
	return nil
}

// readBody returns the whole body or fails.
func readBody(resp *http.Response, maxSize int) ([]byte, error) {
	if resp.ContentLength > int64(maxSize) {
		return nil, atf(StepTooLarge, "policy has %d bytes, more than %d", resp.ContentLength, maxSize)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(maxSize)+1))
	switch {
	case err != nil:
		return nil, atf(StepHTTP, "policy ended early: %w", err)
	case len(body) > maxSize:
		return nil, atf(StepTooLarge, "policy has more than %d bytes", maxSize)
	}
	return body, nil
}
