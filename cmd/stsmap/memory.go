package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent is GOGC unless the environment has it. Cached answers allocate
	// nothing, so that collections are rare, and most of the heap is what is
	// cached: half of it in addition is enough.
	gcPercent = 50
	// releaseEvery is how often memory that is not used any more is given back, if
	// it is more than a part of what is: one in spareShare. A collection of 100,000
	// domains takes about a tenth of a second of one processor.
	releaseEvery = 10 * time.Second
	spareShare   = 8
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
			if live, held := heap(); held > live+live/spareShare {
				debug.FreeOSMemory()
			}
		}
	}
}

// heap returns how many bytes of the heap the last collection found in use, and
// how many it holds.
func heap() (live, held uint64) {
	all := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(all)
	for _, s := range all[1:] {
		held += s.Value.Uint64()
	}
	return all[0].Value.Uint64(), held
}
