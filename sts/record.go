package sts

import (
	"errors"
	"strings"
)

// ErrNoRecord means that no MTA-STS record was found among the TXT records. The caller goes on as if
// the domain had no policy; one that it has cached still counts (RFC 8461, Section 3.1).
var ErrNoRecord = errors.New("no MTA-STS record")

// ErrManyRecords means that there is more than one MTA-STS record, which is to be treated like none
// (RFC 8461, Section 3.1). It is an error of its own because the domain's postmaster should hear of it.
var ErrManyRecords = errors.New("more than one MTA-STS record")

// A Record is the TXT record at _mta-sts.DOMAIN, which says that the domain has a policy.
type Record struct {
	// ID changes whenever the policy does. It is opaque: compare it for equality, case and all; there
	// is no order among IDs (RFC 8461, Section 3.1).
	ID string
}

// ParseRecords finds the one MTA-STS record among txts, each element one TXT resource record with its
// strings joined without spaces. The error is [ErrNoRecord], [ErrManyRecords] or a [*SyntaxError].
//
// RFC 8461, Section 3.1, discards records that do not begin with "v=STSv1;" only where "multiple TXT
// records" came back, and its grammar allows white space before that semicolon (erratum 6285). So a
// record that stands alone is held against the grammar, and one among others must have the prefix first.
// This keeps both sentences; discarding always would break the grammar, and never the text.
func ParseRecords(txts []string) (Record, error) {
	if len(txts) == 1 {
		if !meant(txts[0]) {
			return Record{}, ErrNoRecord
		}
		return parseRecord(txts[0])
	}
	found, n := "", 0
	for _, txt := range txts {
		if strings.HasPrefix(txt, "v=STSv1;") {
			found = txt
			n++
		}
	}
	switch n {
	case 1:
		return parseRecord(found)
	case 0:
		return Record{}, noneOf(txts)
	}
	return Record{}, ErrManyRecords
}

// noneOf says what is wrong if several records came back and none of them begins as it should.
func noneOf(txts []string) error {
	for _, txt := range txts {
		if meant(txt) {
			return recordError("", quote(txt)+` does not begin with "v=STSv1;", and does not count among several TXT records`)
		}
	}
	return ErrNoRecord
}

// meant reports whether the author of a TXT record seems to have meant MTA-STS, so that a mistake is
// called a mistake, and some other record under a wildcard is not.
func meant(txt string) bool {
	txt = strings.ToLower(strings.NewReplacer(" ", "", "\t", "").Replace(txt))
	return strings.Contains(txt, "v=sts") || strings.Contains(txt, "stsv1")
}

// recordError is a syntax error in a TXT record.
func recordError(field, reason string) *SyntaxError {
	return &SyntaxError{Field: field, Reason: reason}
}

// parseRecord reads
//
//	sts-text-record = sts-version 1*(sts-field-delim sts-field) [sts-field-delim]
//	sts-field-delim = *WSP ";" *WSP
//
// White space is part of the delimiter, hence forbidden at the end unless a semicolon is there.
func parseRecord(txt string) (Record, error) {
	if err := checkASCII(txt); err != nil {
		return Record{}, err
	}
	rest, ok := strings.CutPrefix(txt, "v=STSv1")
	if !ok {
		return Record{}, recordError("v", quote(txt)+` does not begin with "v=STSv1"`)
	}
	var id string
	for {
		field, tail, err := cutField(rest)
		if err != nil {
			return Record{}, err
		}
		if field == "" {
			break
		}
		rest = tail
		name, value, err := parseField(field)
		if err != nil {
			return Record{}, err
		}
		// The first "id" counts, the others are ignored whatever they contain, as long as they have the
		// form of an extension (RFC 8461, Section 3.2, of TXT records too). So a bad first one cannot be
		// made good by a second.
		if name == "id" && id == "" {
			if err := checkID(value); err != nil {
				return Record{}, err
			}
			id = value
		}
	}
	if id == "" {
		return Record{}, recordError("id", "is missing")
	}
	return Record{ID: id}, nil
}

// checkASCII holds txt against "MTA-STS TXT records MUST be US-ASCII" (RFC 8461, Section 3.1).
func checkASCII(txt string) error {
	for i := range len(txt) {
		if txt[i] >= 0x80 {
			return recordError("", quote(txt)+" is not US-ASCII")
		}
	}
	if reason, bad := badByte(strings.ReplaceAll(txt, "\t", " ")); bad {
		return recordError("", quote(txt)+" "+reason)
	}
	return nil
}

// cutField takes a delimiter and a field off s. No field and no error: the record ends here.
func cutField(s string) (field, rest string, err error) {
	if s == "" {
		return "", "", nil
	}
	after := strings.TrimLeft(s, " \t")
	switch {
	case after == "":
		return "", "", recordError("", "white space at the end without a semicolon before it")
	case after[0] != ';':
		if len(after) == len(s) {
			return "", "", recordError("v", quote("v=STSv1"+s)+` has more than "STSv1" as version`)
		}
		return "", "", recordError("", "white space before "+quote(after)+": fields are separated by semicolons and contain none")
	}
	after = strings.TrimLeft(after[1:], " \t")
	if after == "" {
		return "", "", nil
	}
	if after[0] == ';' {
		return "", "", recordError("", "two semicolons without a field between them")
	}
	end := strings.IndexAny(after, "; \t")
	if end < 0 {
		end = len(after)
	}
	return after[:end], after[end:], nil
}

// parseField reads one field as sts-extension; every well-formed sts-id has that form too.
func parseField(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	switch {
	case !ok:
		return "", "", recordError("", quote(s)+` is not of the form name=value, without white space around "="`)
	case !isName(name):
		return "", "", recordError("", nameReason(name))
	case value == "":
		return "", "", recordError(name, `has no value after "="`)
	case strings.Contains(value, "="):
		return "", "", recordError(name, quote(value)+` contains "="`)
	}
	return name, value, nil
}

// checkID holds s against sts-id, 1*32(ALPHA / DIGIT).
func checkID(s string) error {
	for i := range len(s) {
		if !isAlphanum(s[i]) {
			return recordError("id", quote(s)+" contains "+quote(s[i:i+1])+": only letters and digits are allowed")
		}
	}
	if len(s) > 32 {
		return recordError("id", quote(s)+" is longer than 32 characters")
	}
	return nil
}
