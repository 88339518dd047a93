#!/bin/sh
# Breaks the lines of the manual pages that are longer than mandoc(1) likes, between words. What is printed stays the same.
set -eu
cd "$(dirname "$0")"
for page in stsmap*.[1-9]; do
	awk '
		/^\.Bd -(literal|unfilled)/ { verbatim = 1 }
		/^\.Ed/ { verbatim = 0 }
		{
			while (!verbatim && $0 !~ /^\./ && length($0) > 80) {
				for (i = 81; i > 0 && substr($0, i, 1) != " "; i--) continue
				if (i == 0) break
				print substr($0, 1, i - 1)
				$0 = substr($0, i + 1)
				if ($0 ~ /^[.\047]/) $0 = "\\&" $0
			}
			print
		}' "$page" >"$page.new"
	if cmp -s "$page" "$page.new"; then rm "$page.new"; else mv "$page.new" "$page"; fi
done
