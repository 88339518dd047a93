// Package fakenet is a small internet on loopback, described by one text: a name server that is the
// authority for all names, policy hosts with HTTPS, MX hosts with SMTP and STARTTLS, and their own
// certification authority. It is for tests, demonstrations and benchmarks, and each part can be made to
// misbehave.
//
// It does not resolve (a CNAME is followed within the description only), does not sign zones, and does not
// route or deliver mail. Its servers have no limits and no deadlines, since a stalled connection is often
// what is wanted: they are for tests only.
//
// # A world
//
// The description is a txtar archive. The text above the first section is a comment.
//
//	A domain with a policy, whose second address does not answer.
//	-- dns --
//	$TTL 300
//	example.com.             MX   10 mx1.example.com.
//	_mta-sts.example.com.    TXT  "v=STSv1; id=A;"
//	mta-sts.example.com.     A    127.0.0.2
//	mta-sts.example.com.     A    127.0.0.3
//	mx1.example.com.         A    127.0.0.11
//	!delay 20ms _mta-sts.example.com TXT
//	!drop 1 * MX
//	-- https --
//	mta-sts.example.com addr=127.0.0.2 policy=example.com
//	mta-sts.example.com addr=127.0.0.3 down
//	-- policy-crlf/example.com --
//	version: STSv1
//	mode: enforce
//	mx: mx1.example.com
//	max_age: 604800
//	-- smtp --
//	mx1.example.com addr=127.0.0.11
//
// An unknown section, word or fault is an error, and so is a section that is there twice.
//
// # Section dns
//
// Records in master file syntax (RFC 1035, Section 5). Names without a final dot are taken as absolute
// too. A wildcard works as in RFC 4592. A name that exists only because something exists below it answers
// with no data, other names with NXDOMAIN, both with the nearest SOA record above; the root has one with
// a TTL and minimum of 60 s, unless the description brings its own. Answers have AA set, and RA if RD was
// set, so that the server can play a resolver.
//
// A line that begins with "!" is a fault. NAME is a name, *.NAME for all names below it, or * for all
// names; TYPE may be left out, or *, for all types.
//
//	!servfail NAME [TYPE]        also !refused, !formerr, !notimp, !nxdomain
//	!silent NAME [TYPE]          no answer
//	!drop N NAME [TYPE]          no answer to the first N questions
//	!delay 20ms NAME [TYPE]      the longest delay that applies counts
//	!truncate NAME [TYPE]        an empty answer with TC over UDP, the full one over TCP
//	!truncate-notcp NAME [TYPE]  the same, but TCP is closed instead of answered
//	!garbage NAME [TYPE]         an answer that breaks off within the question
//	!wrongid NAME [TYPE]         an answer with the wrong id, then the right one
//	!ad NAME [TYPE]              AD is set, for clients that set AD or DO (RFC 6840, Section 5.8)
//	!bare NAME [TYPE]            a CNAME is answered without what it leads to
//	!tlsa HOST U S M             no fault: the TLSA record of the MX host's certificate, at
//	                             _25._tcp.HOST; usages 0 and 2 take the intermediate
//
// # Section https
//
// One policy host per line: its name, and then words. A value with white space is put in double quotes,
// where a backslash protects a quote. Hosts that share an address are selected by SNI and the Host
// field; a handshake without SNI gets the first of them. The only path is /.well-known/mta-sts.txt.
//
//	addr=127.0.0.2          where; may be there twice
//	policy=example.com      the section that is the body; without it the status is 404
//	cert=good               or expired, notyet, soon (5 days left), selfsigned, othername, wildcard (*.parent), cnonly,
//	                        otherca, name=foo.example, wildcard=*.foo.example
//	direct                  signed by the root, without the usual intermediate
//	tls=1.1                 the highest version (1.0 to 1.3); fail: handshakes are refused
//	sni=required            a handshake without the right name is refused
//	status=404              the body is sent all the same
//	redirect=https://…      status 302, unless another is given
//	type="text/plain; charset=utf-8"   or notype; text/plain by default
//	header="Cache-Control: no-store"   any further header
//	chunked, gzip           transfer coding in chunks of 32 bytes, content coding
//	size=65536              the body is brought to that length with a last line "x_padding: xxx…"
//	delay=20ms              between request and response
//	drip=1s                 the body comes a byte at a time, with that pause before each
//	stall=accept            or tls, headers, body: the last step; accept is for the whole address
//	reset                   the request is answered with a TCP reset
//	truncate                half of the body, then the end of the connection
//	shuns=stsmap            status 403 for a User-Agent that begins with that
//	down                    connections to the address are refused
//	silent                  Dial of the address does not return before its context ends
//
// # Sections policy
//
// policy/NAME is a body as it stands, with LF; policy-crlf/NAME is sent with CRLF; policy-quoted/NAME is
// one Go string, for odd bytes and for bodies without a final line end.
//
// # Section smtp
//
// One MX host per line. No two share an address.
//
//	addr=127.0.0.11    where; may be there twice
//	cert=…             as for policy hosts; none: STARTTLS is not offered
//	names=a,b          further names in the certificate
//	direct, tls=…      as for policy hosts; tls=fail: STARTTLS is offered, and fails
//	requiretls         after STARTTLS, REQUIRETLS is offered (RFC 8689)
//	down, silent       as for policy hosts
//
// # Sections ns
//
// ns/192.0.2.53 is what the name server at that address answers, in the same words as section dns; Dial
// leads there. Without one, all name servers are the one of DNSAddr.
//
// # Section bulk
//
// Many similar domains, computed on each query; %d, at the end of the first label, is the number.
//
//	policy d%d.bulk.example 1..20000 addr=127.0.0.2 mx=mx%d.example.net mxaddr=127.0.0.11 dnsdelay=20ms
//	none   n%d.bulk.example 1..20000 mx=mx.example.net
//
// A policy domain has the record, the policy host and the policy; both kinds have an MX record if mx= is
// there, and mxaddr= makes that name exist. Further words: mode=enforce, max_age=604800, id=1, dnsdelay= for
// all names of the line and httpdelay= for its policies.
package fakenet
