package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"stsmap/cache"
)

// Stats counts the entries of the cache.
type Stats struct {
	Domains int64            `json:"domains"`
	Modes   map[string]int64 `json:"modes"`   // by Record.Mode, of what counts now
	Expired int64            `json:"expired"` // policies that do not count any more
	Failing int64            `json:"failing"` // whose last retrieval failed
	Soon    int64            `json:"soon"`    // policies that expire within 24 hours unless they are refreshed
	Oldest  time.Time        `json:"oldest,omitzero"`
	Store   string           `json:"store"`
	// Bytes and Unused are how large the store's file is and how much of it is
	// free for what comes; absent for a store that is not on this machine.
	Bytes  *int64 `json:"bytes,omitempty"`
	Unused *int64 `json:"unused,omitempty"`
}

// Imported is what became of an import.
type Imported struct {
	Imported int           `json:"imported"`
	Known    int           `json:"known"` // a policy downloaded later was known
	Refused  []RefusedLine `json:"refused"`
	Omitted  int           `json:"omitted"` // refused as well, and not listed
}

// A RefusedLine is one that was not imported.
type RefusedLine struct {
	Line   int    `json:"line"` // from 1
	Domain string `json:"domain,omitempty"`
	Error  string `json:"error"`
}

const (
	// soon is how long before it expires a policy should have been renewed.
	soon = 24 * time.Hour
	// maxLine bounds one record of an import, in bytes: in JSON a policy can
	// be six times as long as it is.
	maxLine = 1 << 20
	// maxRefused bounds how many refused lines are listed.
	maxRefused = 100
)

// list sends the records that a Filter means.
func (p *Private) list(w http.ResponseWriter, r *http.Request) {
	filter, err := filterOf(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	out, now := newLines(w), time.Now()
	for e, err := range p.Engine.Entries(r.Context()) {
		if err != nil {
			out.fail(err)
			return
		}
		if rec := RecordOf(e); filter.matches(rec, now) && !out.write(rec) {
			return
		}
	}
}

// show sends one record.
func (p *Private) show(w http.ResponseWriter, r *http.Request) {
	hop, ok := p.key(w, r)
	if !ok {
		return
	}
	e, err := p.Engine.Entry(r.Context(), hop.Domain)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		refuse(w, http.StatusNotFound, ErrUnknown)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, RecordOf(e))
	}
}

// retrieve fetches a domain: with known=yes only if it is not cached.
func (p *Private) retrieve(w http.ResponseWriter, r *http.Request) {
	hop, ok := p.key(w, r)
	if !ok {
		return
	}
	unbounded(w) // the Engine has limits of its own
	e, err := p.Engine.Retrieve(r.Context(), hop.Domain, r.URL.Query().Get("known") != "yes")
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, RecordOf(e))
}

// forget deletes one domain.
func (p *Private) forget(w http.ResponseWriter, r *http.Request) {
	hop, ok := p.key(w, r)
	if !ok {
		return
	}
	if err := p.Engine.Delete(r.Context(), hop.Domain); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, forgotten{1})
}

// forgotten is how many domains were deleted.
type forgotten struct {
	Domains int `json:"domains"`
}

// forgetMany deletes all domains that match a Filter.
func (p *Private) forgetMany(w http.ResponseWriter, r *http.Request) {
	filter, err := filterOf(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	unbounded(w)
	n, now := 0, time.Now()
	for e, err := range p.Engine.Entries(r.Context()) {
		if err == nil && !filter.matches(RecordOf(e), now) {
			continue
		}
		if err == nil {
			err = p.Engine.Delete(r.Context(), e.Domain)
		}
		if err != nil {
			refuse(w, http.StatusInternalServerError, fmt.Errorf("%w, after %d domains", err, n))
			return
		}
		n++
	}
	answer(w, forgotten{n})
}

// takeIn imports the records of the request. A line that cannot be imported is
// part of the result, and the other lines are imported.
func (p *Private) takeIn(w http.ResponseWriter, r *http.Request) {
	unbounded(w)
	result := Imported{Refused: []RefusedLine{}}
	in := bufio.NewReaderSize(r.Body, maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			refuse(w, http.StatusBadRequest, fmt.Errorf("line %d is longer than %d bytes, after %d imported", n, maxLine, result.Imported))
			return
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			p.takeLine(r, n, line, &result)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return // the client has gone
		}
	}
	answer(w, result)
}

// takeLine imports one record, and notes in result what became of it.
func (p *Private) takeLine(r *http.Request, n int, line []byte, result *Imported) {
	var rec Record
	err := json.Unmarshal(line, &rec)
	if err == nil {
		hop, ok := p.NextHop(rec.Domain)
		if rec.Domain = hop.Domain; !ok {
			err = errNoDomain
		}
	}
	if err == nil {
		err = p.Engine.Import(r.Context(), rec.entry())
	}
	switch {
	case err == nil:
		result.Imported++
	case errors.Is(err, cache.ErrOutdated):
		result.Known++
	case len(result.Refused) < maxRefused:
		result.Refused = append(result.Refused, RefusedLine{n, rec.Domain, err.Error()})
	default:
		result.Omitted++
	}
}

// stats counts.
func (p *Private) stats(w http.ResponseWriter, r *http.Request) {
	unbounded(w)
	s, now := Stats{Modes: make(map[string]int64), Store: p.Status().Store.Name}, time.Now()
	for _, m := range modes() {
		s.Modes[m] = 0
	}
	for e, err := range p.Engine.Entries(r.Context()) {
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		s.count(RecordOf(e), now)
	}
	if bytes, unused, ok := p.Size(); ok {
		s.Bytes, s.Unused = &bytes, &unused
	}
	answer(w, s)
}

// count counts one record.
func (s *Stats) count(rec Record, now time.Time) {
	s.Domains++
	if rec.Failures > 0 || rec.Error != "" {
		s.Failing++
	}
	if rec.Expired(now) {
		s.Expired++
		return
	}
	s.Modes[rec.Mode]++
	if rec.Policy != "" && rec.Expires.Sub(now) < soon {
		s.Soon++
	}
	if at := rec.Learned(); s.Oldest.IsZero() || at.Before(s.Oldest) {
		s.Oldest = at
	}
}
