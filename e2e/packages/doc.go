// Package packages holds the packages to what distributors expect of them: that the same source makes the same bytes, that
// the linters of Debian and of RPM have nothing to say that is not explained, that dpkg-buildpackage makes a package of
// packaging/debian, and that the container image does its work without any privilege. It needs root, for podman, and the
// programs that e2e/install.sh installs.
//
// It does not try how the packages behave when they are installed: that is for package boot.
package packages
