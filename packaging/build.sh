#!/bin/sh
# Builds the packages of all formats and machines into dist/: "make packages". The same source and the same Go make the
# same bytes: every time in them is that of the last commit, or SOURCE_DATE_EPOCH.
#
#	VERSION     of the packages, if it is not that in cmd/stsmap/VERSION
#	ARCHES      amd64 arm64
#	FORMATS     deb rpm apk archlinux tar
#	DIST        where they go
#	MAINTAINER  who is named in them
set -eu
cd "$(dirname "$0")/.."
top=$(pwd)

# A tool and no dependency: it is not in go.mod. It is built by what go.sum of the Go proxy vouches for.
NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0

GO=${GO:-go}
VERSION=${VERSION:-$(cat cmd/stsmap/VERSION)}
MAINTAINER=${MAINTAINER:-the stsmap authors <stsmap@localhost>}
DIST=${DIST:-$top/dist}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export VERSION MAINTAINER SOURCE_DATE_EPOCH
export TZ=UTC LC_ALL=C GOFLAGS="${GOFLAGS:-}"
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$DIST"

build() { # machine, file
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 "$GO" build -trimpath -buildvcs=auto -ldflags '-s -w' -o "$2" ./cmd/stsmap
}

# changelog prints that of the packages, in nfpm's words. What changed in stsmap is in CHANGELOG.md.
changelog() {
	cat <<-END
		- semver: $VERSION
		  date: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
		  packager: $MAINTAINER
		  changes:
		    - note: Build stsmap $VERSION, whose own changelog comes with it.
		  deb:
		    urgency: medium
		    distributions: [unstable]
	END
}

# contents lists all files of a tree for nfpm, whose own patterns lose the folders.
contents() { # folder, format
	echo "contents:"
	(cd "$1" && find tree -type f | sort) | while read -r file; do
		case $2:${file#tree} in
		*:/etc/init.d/*) echo "  - {src: $file, dst: ${file#tree}}" ;;
		*:/etc/*) echo "  - {src: $file, dst: ${file#tree}, type: config|noreplace}" ;;
		rpm:/usr/share/doc/* | rpm:/usr/share/man/*) echo "  - {src: $file, dst: ${file#tree}, type: doc}" ;;
		rpm:/usr/share/licenses/*) echo "  - {src: $file, dst: ${file#tree}, type: license}" ;;
		*) echo "  - {src: $file, dst: ${file#tree}}" ;;
		esac
	done
}

# tree puts into $1/tree what a package of the format $2 has.
tree() { # folder, format, binary
	zsh=/usr/share/zsh/site-functions
	[ "$2" != deb ] || zsh=/usr/share/zsh/vendor-completions
	DESTDIR=$1/tree PREFIX=/usr BINARY=$3 ASK=$work/here ZSHDIR=$zsh packaging/install.sh
	doc=$1/tree/usr/share/doc/stsmap
	cp "$work/licenses" "$doc/licenses"
	case $2 in
	tar) return ;; # for people to look into
	apk)
		rm -r "$1/tree/usr/lib"
		install -Dm755 packaging/apk/stsmap.initd "$1/tree/etc/init.d/stsmap"
		install -Dm644 packaging/apk/stsmap.confd "$1/tree/etc/conf.d/stsmap"
		;;
	deb)
		cp packaging/copyright "$doc/copyright"
		mv "$doc/CHANGELOG.md" "$doc/changelog"
		rm "$doc/LICENSE" # is in copyright
		install -Dm644 packaging/deb/lintian-overrides "$1/tree/usr/share/lintian/overrides/stsmap"
		gzip -n9 "$doc/changelog" "$doc/licenses"
		;;
	rpm | archlinux) install -Dm644 LICENSE "$1/tree/usr/share/licenses/stsmap/LICENSE" && rm "$doc/LICENSE" ;;
	esac
	find "$1/tree/usr/share/man" -type f -exec gzip -n9 {} +
	changelog >"$1/changelog.yaml"
	cp -R packaging/deb packaging/rpm packaging/apk packaging/arch "$1/"
	license=MIT
	[ "$2" != deb ] || license= # it is in copyright
	sed "s/%LICENSE%/$license/" packaging/nfpm.yaml >"$1/nfpm.yaml"
	contents "$1" "$2" >>"$1/nfpm.yaml"
}

pack() { # machine, format, suffix
	dir=$work/$1-$2
	mkdir "$dir"
	tree "$dir" "$2" "$work/$1"
	find "$dir" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	out=$DIST/stsmap_${VERSION}_$1.$3
	if [ "$2" = tar ]; then
		mv "$dir/tree" "$dir/stsmap-$VERSION"
		touch -d "@$SOURCE_DATE_EPOCH" "$dir/stsmap-$VERSION"
		tar -C "$dir" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -cf - "stsmap-$VERSION" | gzip -n9 >"$out"
	else
		(cd "$dir" && ARCH=$1 "$work/nfpm" package --config nfpm.yaml --packager "$2" --target "$out" >"$work/said") || { cat "$work/said" >&2; exit 1; }
	fi
	echo "$out"
}

GOBIN=$work "$GO" install "$NFPM"
build "$("$GO" env GOHOSTARCH)" "$work/here"
GO=$GO packaging/licenses.sh >"$work/licenses"
for arch in ${ARCHES:-amd64 arm64}; do
	build "$arch" "$work/$arch"
	for format in ${FORMATS:-deb rpm apk archlinux tar}; do
		case $format in
		archlinux) suffix=pkg.tar.zst ;;
		tar) suffix=tar.gz ;;
		*) suffix=$format ;;
		esac
		pack "$arch" "$format" "$suffix"
	done
done
