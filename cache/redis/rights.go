package redis

import (
	"errors"
	"strconv"
	"strings"
)

// Setup returns the commands, one a line as redis-cli(1) reads them, with which
// an administrator of the server gives the user that a URL names the rights
// that a Store needs, and no others; its password is set apart. It fails if the
// URL is wrong or names no user; it does not connect.
func Setup(url string) (string, error) {
	p, err := parse(url)
	if err != nil {
		return "", err
	}
	if p.user == "" {
		return "", errors.New("redis: URL: no user to give rights to; must be redis://USER:PASSWORD@HOST")
	}
	set := "ACL SETUSER " + word(p.user) + " "
	return strings.Join([]string{
		set + "on resetkeys ~{" + p.prefix + "}:* resetchannels &{" + p.prefix + "}:* -@all",
		set + "+hmget +hset +exists +del +set +get +pexpireat +zadd +zrem +zrange +zrangebyscore",
		set + "+publish +subscribe +eval +evalsha +ping +hello +client|setname",
	}, "\n") + "\n", nil
}

// word is s as one word of a line.
func word(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\`, r) }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
