// Package sts parses what a domain publishes by RFC 8461 (SMTP MTA Strict Transport Security): the TXT
// record that announces a policy, and the policy itself. It also matches host names against a policy. The
// daemon, its diagnostic commands and the tests share this one parser.
//
// It does no I/O, knows no clock and decides nothing: it looks nothing up, does not judge whether a
// policy has expired, and does not verify certificates. It does not limit the size of its input
// either: a caller that reads a policy from the network does (RFC 8461, Section 3.3).
//
// The parser accepts the grammar of the standard and no more: a lenient sender does not protect its
// users, but teaches domain owners to make mistakes. There are two exceptions, argued at [ParsePolicy].
package sts
