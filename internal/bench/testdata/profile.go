package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// init writes a CPU profile of the process to the file that BENCH_PROFILE names, until SIGUSR1, which then ends
// the process as SIGTERM does. The bench adds this file to the daemon.
func init() {
	out, err := os.Create(os.Getenv("BENCH_PROFILE"))
	if err != nil {
		return // another command than serve
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		panic(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGUSR1)
	go func() {
		<-end
		pprof.StopCPUProfile()
		out.Close()
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
}
