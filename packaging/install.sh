#!/bin/sh
# Installs stsmap below $DESTDIR and $PREFIX; "make install" calls it, and so do the packages, which all have this tree.
# An administrator's stsmap.toml stays. Nothing is started, and no user made: systemd-sysusers does that, see README.md.
set -eu
cd "$(dirname "$0")/.."
umask 022

root=${DESTDIR:-}
prefix=${PREFIX:-/usr}
binary=${BINARY:-bin/stsmap}
ask=${ASK:-$binary} # a build for this machine, to be asked for completions
zsh=${ZSHDIR:-$prefix/share/zsh/site-functions}
usr=$root$prefix

install -Dm755 "$binary" "$usr/bin/stsmap"
[ -e "$root/etc/stsmap/stsmap.toml" ] || install -Dm644 config/stsmap.toml "$root/etc/stsmap/stsmap.toml"

for unit in stsmap.service stsmap.socket stsmap-postfix.socket stsmap-misconfigured.target; do
	install -d "$usr/lib/systemd/system"
	sed "s|/usr/bin/stsmap|$prefix/bin/stsmap|" "systemd/$unit" >"$usr/lib/systemd/system/$unit"
	chmod 644 "$usr/lib/systemd/system/$unit"
done
install -Dm644 systemd/sysusers.conf "$usr/lib/sysusers.d/stsmap.conf"

for page in man/*.[1-8]; do
	install -Dm644 -t "$usr/share/man/man${page##*.}" "$page"
done

completion() { # shell, file
	install -d "$(dirname "$2")"
	"$ask" completion "$1" >"$2"
	chmod 644 "$2"
}
completion bash "$usr/share/bash-completion/completions/stsmap"
completion zsh "$root$zsh/_stsmap"
completion fish "$usr/share/fish/vendor_completions.d/stsmap.fish"

install -Dm644 -t "$usr/share/doc/stsmap" README.md CHANGELOG.md LICENSE docs/*.md
# Dashboards, alerts and whatever else is for other programs to read.
for file in packaging/share/* config/overrides.toml; do
	install -d "$usr/share/stsmap"
	cp -R --no-preserve=all "$file" "$usr/share/stsmap/"
done
