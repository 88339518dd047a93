// Package bench measures what stsmap promises: speed beside an echo server, cold lookups beside a client that does
// nothing else, first contacts under attack beside undisturbed ones, memory, start, refresh and stores. Each figure is
// a ratio measured in one run, or stands beside what the same machine did in the same minutes.
//
//	make bench                                                 all of it, as a table with the goals
//	go test -bench 'Cached|Memory' -short ./internal/bench     a part of it, and a tenth of the work
//
// It asserts nothing about time: a figure depends on the machine and on who else uses it, and a benchmark fails only
// if it cannot measure. It does not time parts of the program either; the packages have benchmarks for that.
//
// Each benchmark runs once and reports metrics in the format of package testing, which benchstat compares. A row for
// people goes to standard error with each, with the goal and the best figure of another program of its kind, measured
// on a machine like the one that the goals were set on. With -count above 1 there are no rows.
//
// The daemon under test is cmd/stsmap, built anew, in a process of its own. So are its neighbours, which are this test
// program once more (see Worker): the echo server, the network of package fakenet and the load generators. All of them
// run in namespaces of their own (e2e/site), so that ports 53 and 443 are free and no packet leaves; that needs root.
// The stores need Redis and PostgreSQL. If BENCH_PROFILES names a folder, each daemon that is not killed leaves
// a CPU profile there.
package bench
