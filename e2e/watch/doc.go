// Package watch tries what people watch stsmap with: a real Prometheus scrapes
// real daemons under a load with faults, in which every alert is seen to fire and
// no panel of the dashboard is empty; promtool and mtail run the rules, and
// Chromium looks at the status page.
//
// It sends no mail; that is for package e2e. It needs no root, but prometheus,
// mtail and chromium, which e2e/install.sh installs; it starts them itself, on
// loopback, and no service.
package watch
