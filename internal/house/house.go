// Package house holds the tree to the rules of the house that a program can
// check; CONTRIBUTING.md has them all. It is tests and nothing else.
//
// It does not judge: what it finds is either against a rule or not, and the
// rules that need judgement are for readers.
package house
