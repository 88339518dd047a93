package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

const (
	// gcPercent is GOGC unless the environment has it. Cached answers allocate
	// nothing, so that collections are rare, and most of the heap is what is
	// cached: half of it in addition is enough.
	gcPercent = 50
	// releaseEvery is how often memory that is not used any more is given back. A
	// collection of 100,000 domains takes about a tenth of a second of one
	// processor.
	releaseEvery = time.Minute
)

// tendMemory keeps the daemon small until ctx ends.
func tendMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			debug.FreeOSMemory()
		}
	}
}
