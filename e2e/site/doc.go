// Package site sets up the neighbours that stsmap has in life, each of them real: a Postfix that sends, an Unbound
// that resolves, a Knot DNS that signs zones where that is wanted, the daemon itself under a stand-in for systemd, and
// around them an Internet made by internal/fakenet. Everything happens in a namespace of its own, where ports 25, 53
// and 443 are free, and under one directory; nothing of the machine is touched.
//
// The package tests nothing and knows nothing of testing: what is to be sent and what is expected stands in
// e2e/scenarios, and the demonstration in e2e/demo uses the same parts. It does not install Postfix, Unbound or Knot
// either (e2e/install.sh does).
package site
