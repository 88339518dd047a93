package dane

import (
	"fmt"

	"stsmap/resolver"
)

// The fields of a TLSA record (RFC 7218, Section 2).
const (
	pkixTA, pkixEE, daneTA, daneEE = 0, 1, 2, 3
	selectCert, selectSPKI         = 0, 1
	matchFull                      = 0
	matchSHA256, matchSHA512       = 1, 2
)

// stateOf returns Usable or Unusable for secure records. If none is usable, the
// error is what is wrong with the first.
func stateOf(records []resolver.TLSA) (State, error) {
	var first error
	for _, r := range records {
		err := Usability(r)
		if err == nil {
			return Usable, nil
		}
		if first == nil {
			first = err
		}
	}
	return Unusable, first
}

// Usability returns nil if a host can be authenticated with the record, else an
// error that says why not: unsupported, or malformed (RFC 7671, Section 9). In
// doubt a record is usable. A usable record taken for unusable would put MTA-STS
// in place of DANE; an unusable one taken for usable defers mail to a domain that
// has published an invalid record.
func Usability(r resolver.TLSA) error {
	switch r.Usage {
	case daneTA, daneEE:
	case pkixTA, pkixEE:
		return fmt.Errorf("usage %d is not for SMTP", r.Usage) // RFC 7672, Section 3.1.3
	default:
		return fmt.Errorf("usage %d is unknown", r.Usage)
	}
	if r.Selector != selectCert && r.Selector != selectSPKI {
		return fmt.Errorf("selector %d is unknown", r.Selector)
	}
	switch r.Matching {
	case matchSHA256:
		return wantLen(r, 32)
	case matchSHA512:
		return wantLen(r, 64)
	case matchFull:
		if r.Selector == selectCert {
			return checkCertificate(r.Data)
		}
		return checkKey(r.Data)
	}
	return fmt.Errorf("matching type %d is unknown", r.Matching)
}

func wantLen(r resolver.TLSA, n int) error {
	if len(r.Data) != n {
		return fmt.Errorf("matching type %d with %d bytes, not %d", r.Matching, len(r.Data), n)
	}
	return nil
}
