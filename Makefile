# Everything that is done with the tree; "make help" lists it.

GO       ?= go
PREFIX   ?= /usr
DESTDIR  ?=
# A count, since a time now and then ends with "context deadline exceeded".
FUZZTIME ?= 20000x
SEEDS    ?= 1000
DAYS     ?= 30
SEED     ?= 1
BENCH    ?= .
# Such as "-test.short" for a tenth of the work, or "-test.count=6" for benchstat.
BENCHFLAGS ?=

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

# What "make install" installs: a package names a binary for another machine here, and one for this machine to ask for
# the completions.
BINARY   ?= bin/stsmap
ASK      ?= $(BINARY)
LDFLAGS  ?=
# Where zsh looks for what comes with the system; Debian says vendor-completions.
ZSHDIR   ?= $(PREFIX)/share/zsh/site-functions

# Packages whose tests run real programs: Redis, PostgreSQL, mandoc, postconf.
INTEGRATION = ./cache/postgres ./cache/redis ./man ./postfix/postconf
# The releases of Debian that "make e2e" boots.
E2E_SYSTEMS ?= trixie
export E2E_SYSTEMS

.PHONY: all bin/stsmap run demo test unit integration e2e watch nightly bench fuzz simulate check packages install clean help neighbours fill

all: bin/stsmap            ## build bin/stsmap

bin/stsmap:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o $@ ./cmd/stsmap

run: bin/stsmap            ## build, and serve on 127.0.0.1:8461 with a cache under ./var
	@mkdir -p var
	STSMAP_CACHE_STORE=bolt:var/cache.db STSMAP_ADMIN_SOCKET=$(CURDIR)/var/control.sock exec bin/stsmap serve

demo: bin/stsmap           ## show delivered and refused mail, with a real Postfix (root; may apt-get it and Unbound)
	e2e/install.sh postfix unbound
	$(GO) run ./e2e/demo

test: neighbours unit integration fuzz e2e ## all that CI runs (root, installs neighbours)

neighbours:
	e2e/install.sh

unit:                      ## tests of the packages (no root, no network, no other programs)
	$(GO) test -race -shuffle=on -skip '^TestScripts$$' $$($(GO) list ./... | grep -vFx "$$($(GO) list $(INTEGRATION) ./e2e ./e2e/boot ./e2e/packages ./e2e/watch)")
	$(GO) test -shuffle=on -run '^TestScripts$$' ./cmd/stsmap

integration:               ## packages against real Redis, PostgreSQL, postconf, mandoc; the commands with the race detector
	e2e/install.sh redis postgresql postfix mandoc
	$(GO) test -race -shuffle=on $(INTEGRATION)
	$(GO) test -race -shuffle=on -run '^TestScripts$$' ./cmd/stsmap

e2e: bin/stsmap            ## three Postfixes, Unbound, Knot, in namespaces; packages; a booted Debian (root)
	e2e/install.sh
	@matrix=$$(mktemp) || exit 1; trap 'rm -f "$$matrix"' EXIT; \
	E2E_MATRIX=$$matrix $(GO) test -shuffle=on -count=1 -timeout 30m ./e2e; status=$$?; \
	cat "$$matrix"; exit $$status
	@report=$$(mktemp) || exit 1; trap 'rm -f "$$report"' EXIT; \
	E2E_REPORT=$$report $(GO) test -count=1 -p 1 -timeout 20m ./e2e/packages ./e2e/boot; status=$$?; \
	cat "$$report"; exit $$status

watch: bin/stsmap          ## Prometheus, mtail, Promtail and Chromium against a running daemon (root)
	e2e/install.sh
	$(GO) test -shuffle=on -count=1 -timeout 20m ./e2e/watch

nightly: neighbours        ## hours of it: long fuzzing, 2,000 seeds, 10,000 policies, two booted systems, watch (root)
	$(MAKE) check integration watch
	$(GO) test -race -shuffle=on -count=20 -timeout 6h $$($(GO) list ./... | grep -vE '/e2e(/|$$)')
	$(MAKE) fuzz FUZZTIME=3m
	$(MAKE) simulate SEEDS=2000 DAYS=30 SEED=$$(date +%s)
	$(MAKE) e2e E2E_SYSTEMS="trixie bookworm" E2E_DIFF_POLICIES=10000

bench: neighbours          ## print the figures that README promises, or those of BENCH, such as 'Cached|Memory' (needs root)
	@mkdir -p bin
	$(GO) test -c -o bin/bench ./internal/bench
	bin/bench -test.bench '$(BENCH)' $(BENCHFLAGS) > bin/bench.txt || { tail -n 40 bin/bench.txt; exit 1; }

fuzz:                      ## run each fuzz target for FUZZTIME, such as 1m
	@set -e; for pkg in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$pkg/*_test.go | sed 's/^func //'); do \
	    echo "fuzz $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$pkg; \
	  done; done

simulate:                  ## two hosts, a shared store and what can disturb them, for SEEDS seeds of DAYS days, from SEED on
	GOGC=800 SEEDS=$(SEEDS) DAYS=$(DAYS) SEED=$(SEED) $(GO) test ./policy -run '^TestSimulate$$' -count=1 -timeout 24h -v

check:                     ## gofmt, vet, staticcheck, govulncheck, house rules, tidy go.mod
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GOVULNCHECK=$(GOVULNCHECK) GO=$(GO) internal/house/vulncheck.sh
	$(GO) test -count=1 ./internal/house
	$(GO) mod tidy -diff

fill:                      ## break the lines of the manual pages that mandoc finds too long
	man/fill.sh

packages:                  ## build dist/stsmap_*: deb, rpm, apk, pkg.tar.zst and tar.gz, for amd64 and arm64
	GO=$(GO) packaging/build.sh

install:                   ## install below DESTDIR and PREFIX what make has built; units, user and completions too
	@test -x $(BINARY) || { echo "nothing is built yet: run make first"; exit 1; }
	GO=$(GO) DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) BINARY=$(BINARY) ASK=$(ASK) ZSHDIR=$(ZSHDIR) packaging/install.sh

clean:                     ## remove what was built
	rm -rf bin dist var

help:
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
