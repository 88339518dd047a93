# Everything that is done with the tree; "make help" lists it.

GO       ?= go
PREFIX   ?= /usr
DESTDIR  ?=
# A count, since a time now and then ends with "context deadline exceeded".
FUZZTIME ?= 20000x

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: all bin/stsmap run demo test unit e2e bench fuzz check install clean help neighbours fill

all: bin/stsmap            ## build bin/stsmap

bin/stsmap:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -o $@ ./cmd/stsmap

run: bin/stsmap            ## build, and serve on 127.0.0.1:8461 with a cache under ./var
	@mkdir -p var
	STSMAP_CACHE_STORE=bolt:var/cache.db STSMAP_ADMIN_SOCKET=$(CURDIR)/var/control.sock exec bin/stsmap serve

demo: bin/stsmap           ## show delivered and refused mail, with a real Postfix (root; may apt-get it)
	e2e/install.sh
	$(GO) run ./e2e/demo

test: neighbours unit fuzz e2e        ## every test there is (needs root, installs neighbours)

neighbours:                # for unit too: some packages are held against the real postconf
	e2e/install.sh

unit:                      ## tests of the packages (need postconf)
	$(GO) test -race -shuffle=on $$($(GO) list ./... | grep -v '/e2e$$')

e2e: bin/stsmap            ## three real Postfixes, Unbound, Knot, in namespaces (needs root)
	e2e/install.sh
	@matrix=$$(mktemp) || exit 1; trap 'rm -f "$$matrix"' EXIT; \
	E2E_MATRIX=$$matrix $(GO) test -shuffle=on -count=1 -timeout 20m ./e2e; status=$$?; \
	cat "$$matrix"; exit $$status

bench: bin/stsmap neighbours ## print the figures that README promises (root, for the shared stores)
	$(GO) run ./internal/bench

fuzz:                      ## run each fuzz target for FUZZTIME, such as 1m
	@set -e; for pkg in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$pkg/*_test.go | sed 's/^func //'); do \
	    echo "fuzz $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$pkg; \
	  done; done

check:                     ## gofmt, vet, staticcheck, govulncheck, house rules, tidy go.mod
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	GOVULNCHECK=$(GOVULNCHECK) GO=$(GO) internal/house/vulncheck.sh
	$(GO) test -count=1 ./internal/house
	$(GO) mod tidy -diff

fill:                      ## break the lines of the manual pages that mandoc finds too long
	man/fill.sh

install:                   ## install below DESTDIR and PREFIX what make has built
	@test -x bin/stsmap || { echo "nothing is built yet: run make first"; exit 1; }
	install -Dm755 bin/stsmap $(DESTDIR)$(PREFIX)/bin/stsmap
	test -e $(DESTDIR)/etc/stsmap/stsmap.toml || install -Dm644 config/stsmap.toml $(DESTDIR)/etc/stsmap/stsmap.toml
	install -Dm644 man/stsmap.8 $(DESTDIR)$(PREFIX)/share/man/man8/stsmap.8
	install -Dm644 man/stsmap-check.1 $(DESTDIR)$(PREFIX)/share/man/man1/stsmap-check.1
	install -Dm644 man/stsmap.toml.5 $(DESTDIR)$(PREFIX)/share/man/man5/stsmap.toml.5
	install -Dm644 man/stsmap-postfix.7 $(DESTDIR)$(PREFIX)/share/man/man7/stsmap-postfix.7
	install -Dm644 -t $(DESTDIR)$(PREFIX)/share/doc/stsmap docs/from-postfix-tlspol.md docs/from-postfix-mta-sts-resolver.md docs/mail-log.md

clean:                     ## remove what was built
	rm -rf bin dist var

help:
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
