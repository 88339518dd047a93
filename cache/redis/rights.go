package redis

import (
	"errors"
	"strconv"
	"strings"
)

// Setup returns commands for an administrator of the server, one a line as
// redis-cli(1) reads them. They give the user of the URL the rights that a Store
// needs, and no others, and leave its password as it is. Setup fails if the URL is
// wrong or has no user; it does not connect.
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

// word quotes s as one word of a line, if necessary.
func word(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\`, r) }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}
