#!/bin/sh
# Prints the licences of the modules that are in the program, as they demand of whoever passes it on.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}

"$GO" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/stsmap | sort -u |
	while read -r module version dir; do
		echo "==== $module $version"
		found=
		for file in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/NOTICE* "$dir"/PATENTS*; do
			[ -f "$file" ] || continue
			found=yes
			echo
			cat "$file"
		done
		[ "$found" ] || {
			echo "packaging/licenses.sh: error: no licence in $dir" >&2
			exit 1
		}
		echo
	done
echo "==== Go $("$GO" env GOVERSION)"
echo
cat "$("$GO" env GOROOT)/LICENSE"
