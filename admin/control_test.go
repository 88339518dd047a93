package admin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveOn serves h on a UNIX-domain socket, and returns its path.
func serveOn(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return path
}

// TestStatus: Client.Status returns what Private.Status returned.
func TestStatus(t *testing.T) {
	now := time.Date(2026, 11, 24, 1, 2, 3, 4, time.UTC)
	want := Status{
		Version: "1", Since: now, Answers: map[string]int64{"none": 3, "dane-only": 1},
		DANE:     DANEStatus{Mode: "precede", State: "off", Since: now, Reasons: []string{"a", "b"}},
		Resolver: ResolverStatus{Servers: []string{"127.0.0.1"}, Validates: ProbeResult{Verdict: "no", At: now, Reason: "r", Error: "e"}},
		Postfix:  PostfixStatus{Release: "3.7.11", DNSSEC: ProbeResult{Verdict: "yes"}},
		Store:    StoreStatus{Name: "redis:", Reading: Condition{Since: now}, Writing: Condition{Error: "full", Since: now}, Waiting: 2},
		Listen:   []string{"127.0.0.1:8461", "unix:/s"},
	}
	got, err := NewClient(serveOn(t, (&Private{Status: func() Status { return want }}).Handler())).Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// TestPrivate: nothing but what there is.
func TestPrivate(t *testing.T) {
	c := NewClient(serveOn(t, (&Private{Status: func() Status { return Status{} }}).Handler()))
	for _, r := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v1/status", 200}, {"HEAD", "/v1/status", 200}, {"POST", "/v1/status", 405}, {"GET", "/", 404}, {"GET", "/v2/status", 404},
	} {
		q, err := http.NewRequest(r.method, "http://x"+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.http.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != r.code {
			t.Errorf("%s %s is answered %d, want %d", r.method, r.path, answer.StatusCode, r.code)
		}
	}
}

// TestCrossOrigin: a web page of another origin changes nothing through the
// browser of an administrator, whatever it sends; programs and the status page
// itself are served.
func TestCrossOrigin(t *testing.T) {
	read := 0
	h := (&Private{Status: func() Status { return Status{} }, ReadOverrides: func() error { read++; return nil }}).Handler()
	for _, c := range []struct {
		fields string // of the request's header
		code   int
	}{
		{"", 200}, // no browser
		{"Sec-Fetch-Site: same-origin", 200},
		{"Sec-Fetch-Site: none", 200},
		{"Sec-Fetch-Site: cross-site", 403},
		{"Sec-Fetch-Site: same-site", 403},
		{"Origin: http://stsmap.example.com", 200},
		{"Origin: https://attacker.example", 403},
		{"Origin: null", 403},
	} {
		before := read
		r := httptest.NewRequest(http.MethodPost, "http://stsmap.example.com"+readPath, nil)
		if name, value, ok := strings.Cut(c.fields, ": "); ok {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code || (read > before) != (c.code == 200) {
			t.Errorf("with %q the answer is %d, and overrides were read %d times, want %d", c.fields, w.Code, read-before, c.code)
		}
		if c.code == 403 && !strings.Contains(w.Body.String(), `{"error":"cross-origin request refused`) {
			t.Errorf("with %q the answer is %q", c.fields, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodDelete, "http://stsmap.example.com"+cachePath, nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 403 {
		t.Errorf("DELETE is answered %d", w.Code)
	}
}

// TestClientErrors: the error of a request says what is wrong, in plain words
// and without HTTP.
func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewClient(filepath.Join(dir, "none")).Status(t.Context()); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "http") {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(filepath.Join(dir, "stale")).Status(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stale socket: %v", err)
	}
	if _, err := NewClient(serveOn(t, http.NotFoundHandler())).Status(t.Context()); !errors.Is(err, ErrGarbled) || !strings.Contains(err.Error(), "404") {
		t.Errorf("another server: %v", err)
	}
	for _, text := range []string{"Hello", "", "{", `{"version": 1}`} {
		strange := NewClient(serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })))
		if _, err := strange.Status(t.Context()); !errors.Is(err, ErrGarbled) {
			t.Errorf("%q: %v", text, err)
		}
	}
	prose := NewClient(serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Hello")) })))
	for _, err := range prose.List(t.Context(), Filter{}) {
		if !errors.Is(err, ErrGarbled) {
			t.Errorf("list: %v", err)
		}
	}
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(serveOn(t, late)).Status(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrGarbled) {
		t.Errorf("no end: %v", err)
	}
}

// TestUnwritable: what cannot be written in JSON is refused with the reason, and
// not answered with nothing.
func TestUnwritable(t *testing.T) {
	p := &Private{Status: func() Status { return Status{Since: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} }}
	_, err := NewClient(serveOn(t, p.Handler())).Status(t.Context())
	if refused, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(refused.Reason, "the answer cannot be written: ") {
		t.Errorf("%v", err)
	}
}
