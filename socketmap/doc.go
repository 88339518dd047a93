// Package socketmap speaks the socketmap protocol of Postfix and Sendmail, as a server and as a
// client, and is shaped like net/http: a [Server] asks a [Handler] for the [Reply] to a [Request].
//
// It does not know what the maps contain: which map names exist, what a key means and which text
// Postfix can parse is for the handler. It sets no deadline for a lookup, does not repeat lookups, and
// neither authenticates nor encrypts: every client that can connect can ask, and every server that can
// listen at the address can answer (util/dict_sockmap.c, SECURITY).
//
// # The protocol, as Postfix speaks it
//
// A request is one netstring, the name of a map, a space, and a key; the reply is one netstring, a
// status word, a space, and a text:
//
//	client: 19:postfix example.com,
//	server: 30:OK secure match=mx.example.com,
//	client: 19:postfix example.net,
//	server: 9:NOTFOUND ,
//
// OK needs a text; NOTFOUND makes Postfix go on to the next table; TEMP, TIMEOUT and PERM make it
// defer the mail, all three alike, and print the first 200 bytes of the text in its log. Anything
// else counts as TEMP. Postfix reads the payload as a C string, so a NUL would cut a text short.
//
// A connection carries any number of requests, for any number of maps, one at a time: Postfix waits
// for the reply before it asks again. An smtp(8) process keeps its connection until it was idle for
// 10 seconds or is 100 seconds old, but looks at these clocks only between deliveries, so a
// connection can be silent for longer and then be used again. If a connection is closed instead of
// answered, Postfix connects once more and repeats the request; the second failure is an error, and the
// mail is deferred. So it is harmless to close a connection after its first request, and harmful to
// close one before it: that may be the second. Postfix waits 100 seconds for a reply, and after that
// timeout the process fails all further lookups on this connection at once, so replies have to come
// well before.
//
// Postfix does not close a connection after a malformed reply. It goes on reading, and takes what
// follows for the answer to its next request, and so on with every later request. The texts come from
// strangers' policies. So a server must send exactly one well-formed netstring for each request;
// [Server] closes the connection if it cannot.
package socketmap
