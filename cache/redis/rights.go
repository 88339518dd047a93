package redis

import "strings"

// Rights returns the commands, one a line, with which an administrator of the
// server gives a user of that name the rights that a Store needs, with the
// default prefix, and no others; its password is set apart. The user is named
// in the URL.
func Rights(user string) string {
	return strings.Join([]string{
		"ACL SETUSER " + user + " on resetkeys ~{" + defaultPrefix + "}:* resetchannels -@all",
		"ACL SETUSER " + user + " +hmget +hget +hset +exists +del +set +get +pexpireat +zadd +zrem +zrange +zrangebyscore",
		"ACL SETUSER " + user + " +xadd +xread +xrevrange +eval +evalsha +ping +hello +client|setname",
	}, "\n")
}
