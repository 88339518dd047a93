package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Public answers on admin.listen: metrics and health checks for programs, and
// a status page for people. It is read-only, and asks for no password. All
// fields must be set.
type Public struct {
	// Metrics answers Prometheus.
	Metrics *Metrics
	// Status says how the daemon is. It is called for each request,
	// concurrently.
	Status func() Status
	// Live returns why the daemon does not answer itself through its own
	// sockets, or nil.
	Live func(context.Context) error
	// Page is the status page.
	Page *Page
}

// Handler returns what answers requests.
func (p *Public) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.Metrics.Handler())
	mux.HandleFunc("GET /livez", p.livez)
	mux.HandleFunc("GET /readyz", p.readyz)
	mux.Handle("/", p.Page.Handler(false))
	return mux
}

// livez says whether the daemon answers itself.
func (p *Public) livez(w http.ResponseWriter, r *http.Request) {
	check := Check{Name: "sockets"}
	if err := p.Live(r.Context()); err != nil {
		check.Error = err.Error()
	}
	health(w, r, []Check{check})
}

// readyz says whether everything works that the daemon needs.
func (p *Public) readyz(w http.ResponseWriter, r *http.Request) { health(w, r, p.Status().Checks) }

// A Health is what /livez and /readyz say in JSON.
type Health struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// health answers with checks: as a line each, or in JSON if the client accepts
// that, with the status 503 if one of them failed.
func health(w http.ResponseWriter, r *http.Request, checks []Check) {
	h := Health{OK: Status{Checks: checks}.Ready(), Checks: checks}
	w.Header().Set("Cache-Control", "no-store")
	code := http.StatusOK
	if !h.OK {
		code = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(h)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, healthText(checks))
}

// healthText is a line for each check, fit for a terminal.
func healthText(checks []Check) string {
	var b strings.Builder
	for _, c := range checks {
		if c.Error == "" {
			fmt.Fprintf(&b, "%s: ok\n", c.Name)
		} else {
			fmt.Fprintf(&b, "%s: %s\n", c.Name, oneLine(c.Error))
		}
	}
	return b.String()
}

// oneLine is s without anything that a terminal would act upon.
func oneLine(s string) string {
	q := fmt.Sprintf("%q", s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
