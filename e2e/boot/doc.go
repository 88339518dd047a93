// Package boot tries stsmap as people get it: the Debian package is installed in a system that systemd has booted, with
// Postfix and Unbound in it and a small Internet on its loopback, in a container that has nothing to do with this
// machine. It needs root, and the programs that e2e/install.sh installs.
//
// The cases are scripts in testdata/script. What Postfix does with the answers is not asked here beyond whether mail
// goes: that is for package e2e.
package boot
