// Package storeurl reads what all URLs of stores have in common, and keeps
// passwords out of error messages.
//
// It does not know which parameters a store has, or what a host is: that is for
// the parser of the store's library, which gets what [URL.String] returns.
package storeurl

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A URL is a URL of a store, split as far as it takes to know which parts are
// secret. Create it with [Parse].
type URL struct {
	Scheme string
	// Params are the parameters, without those that Take returned.
	Params url.Values

	place   string // between "://" and "?"
	secrets []string
}

// Parse splits a URL. Each parameter may occur once, but for those that are
// repeatable. It refuses a URL in which the end of the password is not certain:
// with an unescaped @, / or ? in a password, a part of it would be taken for the
// name of a host or a database, and appear in errors and DNS queries. Its errors
// have no part of a password.
func Parse(text string, repeatable ...string) (*URL, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || strings.ContainsAny(scheme, ":/?#@ ") {
		return nil, errors.New("not a URL; must be SCHEME://…")
	}
	u := &URL{Scheme: scheme, Params: make(url.Values)}
	host := rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if strings.ContainsAny(rest[:i], "@/?# ") {
			return nil, errors.New("an @ that does not end the password, or one of / ? # @ and space before it (hint: within a password write %40 %2F %3F %23 %20)")
		}
		_, password, _ := strings.Cut(rest[:i], ":")
		u.secrets = append(u.secrets, password)
		host = rest[i+1:]
	}
	if strings.Contains(host, "#") {
		return nil, errors.New("a # has no meaning (hint: within a password write %23)")
	}
	_, query, _ := strings.Cut(host, "?")
	u.place = strings.TrimSuffix(strings.TrimSuffix(rest, query), "?")
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		rawKey, rawValue, ok := strings.Cut(pair, "=")
		key, keyErr := url.QueryUnescape(rawKey)
		value, valueErr := url.QueryUnescape(rawValue)
		if !ok || keyErr != nil || valueErr != nil {
			return nil, errors.New("a parameter that is not name=value, or with a % that is not followed by two hexadecimal digits")
		}
		if strings.Contains(key, "password") {
			u.secrets = append(u.secrets, rawValue, value)
		}
		if u.Params.Has(key) && !slices.Contains(repeatable, key) {
			return nil, u.Redact(fmt.Errorf("parameter %q is given twice", key))
		}
		u.Params.Add(key, value)
	}
	return u, nil
}

// Take removes a parameter from the URL and returns its value. It returns the
// empty string if there is none.
func (u *URL) Take(name string) string {
	value := u.Params.Get(name)
	u.Params.Del(name)
	return value
}

// String returns the URL with its password and without the parameters that Take
// returned, for the library of the store.
func (u *URL) String() string {
	text := u.Scheme + "://" + u.place
	if len(u.Params) > 0 {
		text += "?" + u.Params.Encode()
	}
	return text
}

// Redact returns err as an error that can be shown. It leaves out the URL where
// the library quotes it, and replaces the text if that has a password in spite
// of that. A nil error stays nil.
func (u *URL) Redact(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if bad, ok := errors.AsType[*url.Error](err); ok {
		text = bad.Err.Error()
	}
	for _, secret := range u.secrets {
		decoded, bad := url.PathUnescape(secret)
		if secret != "" && (strings.Contains(text, secret) || bad == nil && strings.Contains(text, decoded)) {
			return errors.New("not understood, and what is wrong cannot be said without the password")
		}
	}
	return errors.New(text)
}
