#!/bin/sh
# Installs the neighbours that the tests and the demonstration use: Postfix, Unbound, Knot DNS, Redis, PostgreSQL, SQLite, ip(8),
# mandoc, Prometheus, mtail, Chromium, and mmdebstrap, which gets other releases of Postfix. Debian and its descendants only. Does
# nothing if they are there; else
# needs root. Neither starts a service nor changes the configuration of one that exists.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
command -v postfix >/dev/null 2>&1 && command -v postconf >/dev/null 2>&1 || missing="$missing postfix"
command -v unbound >/dev/null 2>&1 && command -v unbound-control >/dev/null 2>&1 || missing="$missing unbound"
command -v knotd >/dev/null 2>&1 && command -v knotc >/dev/null 2>&1 && command -v keymgr >/dev/null 2>&1 ||
	missing="$missing knot"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v redis-server >/dev/null 2>&1 && command -v redis-cli >/dev/null 2>&1 && command -v redis-sentinel >/dev/null 2>&1 ||
	missing="$missing redis-server redis-sentinel"
command -v sqlite3 >/dev/null 2>&1 || missing="$missing sqlite3"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
command -v mandoc >/dev/null 2>&1 || missing="$missing mandoc"
# With its keyring, for the roots that hold other releases of Postfix.
command -v mmdebstrap >/dev/null 2>&1 || missing="$missing mmdebstrap debian-archive-keyring"
# Packages are booted, looked through, built as Debian does it, and run as a container.
command -v systemd-nspawn >/dev/null 2>&1 || missing="$missing systemd-container"
command -v lintian >/dev/null 2>&1 || missing="$missing lintian"
command -v rpmlint >/dev/null 2>&1 || missing="$missing rpmlint rpm"
command -v dpkg-buildpackage >/dev/null 2>&1 && command -v dh >/dev/null 2>&1 || missing="$missing dpkg-dev debhelper"
command -v podman >/dev/null 2>&1 && command -v runc >/dev/null 2>&1 || missing="$missing podman runc"
command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v mtail >/dev/null 2>&1 || missing="$missing mtail"
command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium chromium-driver"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "e2e/install.sh: error: no apt-get; please install:$missing" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "e2e/install.sh: error: not root; these are missing:$missing" >&2
	echo "e2e/install.sh: hint: sudo apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

# invoke-rc.d(8) asks this program whether a package may start its service; 101 means no. Where there is one already,
# its owner has decided.
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ] && [ ! -L "$guard" ]; then
	trap 'rm -f "$guard"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$guard"
	chmod 755 "$guard"
fi

# A Postfix that is not there yet must not ask its questions; "No configuration" would leave none to read for
# postconf, so it becomes one that takes no mail from elsewhere and is never started.
export DEBIAN_FRONTEND=noninteractive
case "$missing" in
*postfix*) echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections ;;
esac
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -qq -y --no-install-recommends $missing
