package fakenet

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// effects are all that is done to one question, by all the faults that apply to it.
type effects struct {
	silent    bool          // no answer at all
	delay     time.Duration // the longest that applies
	rcode     int           // instead of an answer, unless it is success
	truncate  bool          // TC over UDP
	hangUp    bool          // TCP is closed instead of answered
	garbage   bool          // an answer that cannot be parsed
	wrongID   bool          // an answer to another question first
	authentic bool          // AD, if the client asked for it
	bare      bool          // CNAMEs are not followed
}

// fault is one line that begins with an exclamation mark.
type fault struct {
	name  string // canonical; "*." and what follows for all below a name; "*" for all names
	qtype uint16 // 0 for all
	left  *atomic.Int64
	apply func(*effects)
}

// faultList finds the faults for a question without looking at all of them.
type faultList struct {
	exact map[string][]*fault
	wide  []*fault
}

// on returns what happens to a question.
func (l *faultList) on(name string, qtype uint16) effects {
	e := effects{rcode: dns.RcodeSuccess}
	for _, f := range l.exact[name] {
		f.on(qtype, &e)
	}
	for _, f := range l.wide {
		if f.name == "*" || strings.HasSuffix(name, f.name[1:]) {
			f.on(qtype, &e)
		}
	}
	return e
}

func (f *fault) on(qtype uint16, e *effects) {
	if f.qtype != 0 && f.qtype != qtype {
		return
	}
	if f.left != nil && f.left.Add(-1) < 0 {
		return
	}
	f.apply(e)
}

// fault reads a fault line, already split at white space.
func (p *parser) fault(line int, words []string) error {
	f := new(fault)
	kind, args := words[0][1:], words[1:]
	switch kind {
	case "tlsa":
		return p.askTLSA(line, args)
	case "servfail", "refused", "formerr", "notimp", "nxdomain":
		rcode := dns.StringToRcode[strings.ToUpper(kind)]
		f.apply = func(e *effects) { e.rcode = rcode }
	case "silent":
		f.apply = func(e *effects) { e.silent = true }
	case "truncate":
		f.apply = func(e *effects) { e.truncate = true }
	case "truncate-notcp":
		f.apply = func(e *effects) { e.truncate, e.hangUp = true, true }
	case "garbage":
		f.apply = func(e *effects) { e.garbage = true }
	case "wrongid":
		f.apply = func(e *effects) { e.wrongID = true }
	case "ad":
		f.apply = func(e *effects) { e.authentic = true }
	case "bare":
		f.apply = func(e *effects) { e.bare = true }
	case "delay", "drop":
		if len(args) == 0 {
			return fmt.Errorf("!%s lacks its number", kind)
		}
		if err := f.parseNumber(kind, args[0]); err != nil {
			return err
		}
		args = args[1:]
	default:
		return fmt.Errorf("unknown fault %q", words[0])
	}
	if err := f.parseTarget(args); err != nil {
		return fmt.Errorf("!%s: %w", kind, err)
	}
	l := &p.zone.faults
	if strings.HasPrefix(f.name, "*") {
		l.wide = append(l.wide, f)
		return nil
	}
	if l.exact == nil {
		l.exact = make(map[string][]*fault)
	}
	l.exact[f.name] = append(l.exact[f.name], f)
	return nil
}

// parseNumber reads the delay, or how many queries get no answer.
func (f *fault) parseNumber(kind, word string) error {
	if kind == "delay" {
		d, err := time.ParseDuration(word)
		if err != nil || d < 0 {
			return fmt.Errorf("!delay: bad time %q", word)
		}
		f.apply = func(e *effects) { e.delay = max(e.delay, d) }
		return nil
	}
	times, err := strconv.Atoi(word)
	if err != nil || times < 1 {
		return fmt.Errorf("!drop: bad number %q", word)
	}
	f.left = new(atomic.Int64)
	f.left.Store(int64(times))
	f.apply = func(e *effects) { e.silent = true }
	return nil
}

// parseTarget reads the name, and the type if there is one.
func (f *fault) parseTarget(args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return fmt.Errorf("wants NAME [TYPE], not %d words", len(args))
	}
	if _, ok := dns.IsDomainName(args[0]); !ok {
		return fmt.Errorf("bad name %q", args[0])
	}
	f.name = "*"
	if args[0] != "*" {
		f.name = dns.CanonicalName(args[0])
	}
	if len(args) == 2 && args[1] != "*" {
		if f.qtype = typeNumber(args[1]); f.qtype == 0 {
			return fmt.Errorf("unknown type %q", args[1])
		}
	}
	return nil
}
