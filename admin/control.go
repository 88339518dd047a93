package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"stsmap/dane"
	"stsmap/policy"
)

// Where things are on the control socket. The version changes if a name in the
// JSON is taken away or given another meaning.
const (
	statusPath   = "/v1/status"
	cachePath    = "/v1/cache"
	entryPath    = "/v1/cache/entry"
	retrievePath = "/v1/cache/retrieve"
	importPath   = "/v1/cache/import"
	tablePath    = "/v1/cache/table"
	statsPath    = "/v1/cache/stats"
	readPath     = "/v1/overrides/read"
	explainPath  = "/v1/explain"
)

// writeLimit is how long a client may take to read what it was sent last.
const writeLimit = 30 * time.Second

// A Private answers on the control socket. It asks for no password: a user who
// may connect may read and change everything. All fields but Page must be set.
type Private struct {
	// Status says how the daemon is. It is called for each request,
	// concurrently.
	Status func() Status
	// Engine has what is cached, fetches and deletes.
	Engine *policy.Engine
	// NextHop returns what a key that Postfix would send means, and false if it
	// has no policy domain.
	NextHop func(key string) (dane.NextHop, bool)
	// Row returns the row of a next-hop in a Postfix table; or false, with the
	// reason if a table cannot express it, and without one if no row is needed.
	Row func(d *policy.Decision) (value string, ok bool)
	// Size returns how many bytes the store takes on this machine, and how many
	// of those are not in use; false if that is unknown.
	Size func() (bytes, unused int64, ok bool)
	// ReadOverrides reads the overrides again.
	ReadOverrides func() error
	// Explain answers the key of an Explanation in its map as Postfix would be,
	// without counting that as a use, and fills in what belongs to Postfix:
	// MapKnown, Testing, Attributes and Reply. It returns what was decided, and
	// nil for a key that has no policy domain.
	Explain func(ctx context.Context, e *Explanation) *policy.Decision
	// History is what happened.
	History *History
	// Page is the status page with the names of domains, for a reverse proxy
	// with authentication in front of this socket; nil if there is none.
	Page *Page
}

// Handler returns what answers requests. It refuses a request that a web page of
// another origin has a browser send: a proxy before this socket, as the status
// page suggests one, adds the administrator's password to it.
func (p *Private) Handler() http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, errCrossOrigin)
	}))
	return origin.Handler(p.mux())
}

// mux returns what answers requests that may be answered.
func (p *Private) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Status()) })
	mux.HandleFunc("GET "+cachePath, p.list)
	mux.HandleFunc("DELETE "+cachePath, p.forgetMany)
	mux.HandleFunc("GET "+entryPath, p.show)
	mux.HandleFunc("DELETE "+entryPath, p.forget)
	mux.HandleFunc("POST "+retrievePath, p.retrieve)
	mux.HandleFunc("POST "+importPath, p.takeIn)
	mux.HandleFunc("GET "+tablePath, p.table)
	mux.HandleFunc("GET "+statsPath, p.stats)
	mux.HandleFunc("POST "+readPath, p.readOverrides)
	mux.HandleFunc("GET "+explainPath, p.explain)
	if p.Page != nil {
		mux.Handle("/", p.Page.Handler(true))
	}
	return mux
}

// readOverrides reads the overrides again, and answers with those in force
// then.
func (p *Private) readOverrides(w http.ResponseWriter, _ *http.Request) {
	if err := p.ReadOverrides(); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, p.Status().Overrides)
}

// answer sends v, all of it or why it cannot be sent: half of it, or nothing,
// would look as if the daemon had gone.
func answer(w http.ResponseWriter, v any) {
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(v); err != nil {
		refuse(w, http.StatusInternalServerError, fmt.Errorf("the answer cannot be written: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client has gone.
	_, _ = text.WriteTo(w)
}

// A problem is the body of an answer that is none.
type problem struct {
	Error string `json:"error"`
}

// refuse says why there is no answer.
func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(problem{err.Error()})
}

// key returns the next-hop that a request is about; if there is none it has
// said so.
func (p *Private) key(w http.ResponseWriter, r *http.Request) (dane.NextHop, bool) {
	hop, ok := p.NextHop(r.URL.Query().Get("key"))
	if !ok {
		refuse(w, http.StatusBadRequest, errNoDomain)
	}
	return hop, ok
}

var (
	errNoDomain    = errors.New("no policy domain")
	errCrossOrigin = errors.New("cross-origin request refused: only programs and the status page itself may change anything here")
)

// unbounded removes the time limit of a request; extend renews it, for requests
// that send much.
func unbounded(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Time{})
}

// A lines writes JSON, one value a line, to a client that may be slow but must
// not stop.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	enc     *json.Encoder
	sent    int
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/jsonl")
	l := &lines{w: w, control: http.NewResponseController(w), enc: json.NewEncoder(w)}
	l.extend()
	return l
}

func (l *lines) extend() { _ = l.control.SetWriteDeadline(time.Now().Add(writeLimit)) }

// write reports whether the client still reads.
func (l *lines) write(v any) bool {
	if l.sent++; l.sent%256 == 0 {
		l.extend()
	}
	return l.enc.Encode(v) == nil
}

// fail ends what was begun in a way that the client does not take for the end.
func (l *lines) fail(err error) {
	l.write(problem{err.Error()})
}
