#!/bin/sh
# Installs the programs that the tests and the demonstration use, with apt-get: Debian and its descendants only.
#
#   e2e/install.sh               all of them
#   e2e/install.sh NAME...       these, such as: e2e/install.sh postfix unbound
#
# Does nothing if they are installed, and else needs root. Neither starts a service nor changes the configuration of one
# that exists. E2E_ROOT is a directory to use in place of / (for the test of this script).
set -eu
root=${E2E_ROOT:-}
PATH=$PATH:$root/usr/sbin:$root/sbin
wanted=$*
known=
missing=

# neighbour NAME PACKAGES COMMAND...: if NAME is wanted and one of the commands is missing, PACKAGES are to be installed.
neighbour() {
	name=$1 packages=$2
	shift 2
	known="$known $name"
	case " $wanted " in
	"  " | *" $name "*) ;;
	*) return 0 ;;
	esac
	for program; do
		command -v "$program" >/dev/null 2>&1 && continue
		missing="$missing $packages"
		return 0
	done
}

neighbour postfix postfix postfix postconf
neighbour unbound unbound unbound unbound-control
neighbour knot knot knotd knotc keymgr
neighbour ip iproute2 ip
neighbour redis "redis-server redis-sentinel" redis-server redis-cli redis-sentinel
neighbour sqlite sqlite3 sqlite3
neighbour postgresql postgresql "$(ls "$root"/usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -n 1)"
neighbour mandoc mandoc mandoc
# With its keyring, for the roots that hold other releases of Postfix.
neighbour mmdebstrap "mmdebstrap debian-archive-keyring" mmdebstrap
# Packages are booted, checked by linters, built as Debian does it, and run as a container.
neighbour nspawn systemd-container systemd-nspawn
neighbour lintian lintian lintian
neighbour rpmlint "rpmlint rpm" rpmlint
neighbour debhelper "dpkg-dev debhelper" dpkg-buildpackage dh
neighbour podman "podman runc" podman runc
neighbour prometheus prometheus prometheus promtool
neighbour mtail mtail mtail
neighbour chromium "chromium chromium-driver" chromium chromedriver

for name in $wanted; do
	case "$known " in
	*" $name "*) ;;
	*)
		echo "e2e/install.sh: error: unknown name $name; must be one of:$known" >&2
		exit 1
		;;
	esac
done
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
guard=$root/usr/sbin/policy-rc.d
if [ ! -e "$guard" ] && [ ! -L "$guard" ]; then
	trap 'rm -f "$guard"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$guard"
	chmod 755 "$guard"
fi

# A Postfix that is not there yet must not ask its questions; "No configuration" would leave none to read for
# postconf, so it becomes one that takes no mail from elsewhere and is never started.
export DEBIAN_FRONTEND=noninteractive
case "$missing " in
*" postfix "*) echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections ;;
esac
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -qq -y --no-install-recommends $missing
