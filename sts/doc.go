// Package sts reads what RFC 8461 (SMTP MTA Strict Transport Security) lets a domain publish: the TXT
// record that says a policy exists, and the policy itself; and it says whether a host is one that a
// policy names. The daemon, its diagnostic commands and the tests share this one parser.
//
// It does no input or output, knows no clock and decides nothing: it neither looks anything up nor
// judges whether a policy still counts, and it does not check certificates. Nor does it guard against
// size: whoever reads a policy from the network limits it first (RFC 8461, Section 3.3).
//
// The grammar is kept to the letter, because a sender that reads more than the standard allows protects
// its own users from nobody's mistakes but teaches domains to make them. There is one exception, argued
// at [ParsePolicy].
package sts
