// Package sts reads what RFC 8461 (SMTP MTA Strict Transport Security) lets a domain publish: the TXT
// record that says a policy exists, and the policy itself; and it says whether a host is one that a
// policy names. The daemon, its diagnostic commands and the tests share this one parser.
//
// It does no input or output, knows no clock and decides nothing: it neither looks anything up nor
// judges whether a policy still counts, and it does not check certificates. Nor does it guard against
// size: the caller limits a policy from the network first (RFC 8461, Section 3.3).
//
// The grammar is kept to the letter, because a sender that accepts more than the standard allows teaches
// domains to publish what other senders refuse. There are two exceptions, argued at [ParsePolicy].
package sts
