package stsfetch

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
)

// isGzip reports whether the body of a response with header h is coded with gzip.
// An error names a coding that cannot be decoded.
//
// Names that are no coding are ignored: they do not change the body, and hosts
// send them for names of character sets or because an upload had them. RFC 8461
// has no condition about Content-Encoding, so refusing such a response would
// take the protection from a domain for nothing.
func isGzip(h http.Header) (bool, error) {
	gzipped := false
	for _, value := range h.Values("Content-Encoding") {
		for name := range strings.SplitSeq(value, ",") {
			switch name = strings.ToLower(strings.Trim(name, " \t")); {
			case isNoCoding(name):
			case !gzipped && (name == "gzip" || name == "x-gzip"):
				gzipped = true
			case gzipped && (name == "gzip" || name == "x-gzip"):
				return false, stepErrf(StepHTTP, "response is coded with gzip more than once")
			default:
				return false, stepErrf(StepHTTP, "response is coded as %.64q although no coding was accepted", name)
			}
		}
	}
	return gzipped, nil
}

// isNoCoding reports whether name, in lower case, stands in Content-Encoding without
// meaning that the body is coded.
func isNoCoding(name string) bool {
	return slices.Contains([]string{
		"", "identity", "none", // no coding
		"aws-chunked",                        // the coding of an upload, which the bucket has removed
		"utf-8", "utf8", "us-ascii", "ascii", // character sets
		"7bit", "8bit", "binary", "text/plain", "plain", // values of other fields
	}, name)
}

// gunzip returns the decoded body. The result has at most maxSize bytes, however
// many the coding promises.
func gunzip(body []byte, maxSize int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, stepErrf(StepHTTP, "response is coded as gzip and cannot be decoded: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(maxSize)+1))
	switch {
	case err != nil:
		return nil, stepErrf(StepHTTP, "response is coded as gzip and cannot be decoded: %w", err)
	case len(text) > maxSize:
		return nil, stepErrf(StepTooLarge, "policy has more than %d bytes when its gzip coding is decoded", maxSize)
	}
	return text, nil
}
