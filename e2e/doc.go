// Package e2e holds the end-to-end tests: a real Postfix, of three releases one after the other, asks stsmap, resolves
// with a real Unbound, zones signed by a real Knot DNS among others, and delivers, or does not, to the MX hosts of a
// small Internet. They need root, and the programs that install.sh installs.
//
// The package has no code of its own. A case is a directory below scenarios, described in scenarios/README.md, and
// the neighbours are in package site. The tests take what Postfix does with a reply from its log, and assume nothing. The
// finer points of the protocol are tested in packages socketmap and postfix instead.
package e2e
