package bench

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

// A server is a process that answers at an address.
type server struct {
	addr string
	pid  int
}

// A ratio is how one server did, as a share of what another did.
type ratio struct {
	rate float64
	cpu  float64 // per answer
	load float64 // the load generator's share of all CPU time, beside the first server
}

// compare puts the same load on two servers in turns: many and short ones, for how the scheduler happens to place two
// processes that wait for each other makes more of a difference than what they do, and lasts for a while.
func compare(b *testing.B, load *process, x, y server, conns int, keys Series) ratio {
	const length = 60 * time.Millisecond
	turns := [2]turns{{server: x}, {server: y}}
	for round := range quick(40) {
		for turn := range 2 {
			// Which goes first changes, lest a machine that grows slower favours one of them.
			turns[(round+turn)%2].add(b, load, Job{Conns: conns, Keys: keys, Time: length})
		}
	}
	return ratio{
		rate: highest(turns[0].rates) / highest(turns[1].rates),
		cpu:  lowest(turns[0].costs) / lowest(turns[1].costs),
		load: turns[0].load.Seconds() / (turns[0].load + turns[0].cpu).Seconds(),
	}
}

// turns are those of one server.
type turns struct {
	server
	rates, costs []float64 // of each turn: answers per second, and seconds of CPU per answer
	cpu, load    time.Duration
}

// add has the server answer once for as long as j says.
func (t *turns) add(b *testing.B, load *process, j Job) {
	usage := func() (server, generator time.Duration) {
		server, err := cpuTime(t.pid)
		check(b, err)
		generator, err = cpuTime(load.pid)
		check(b, err)
		return server, generator
	}
	j.Addr = t.addr
	cpu, generator := usage()
	c := load.run(b, "Rate", j)
	c.check(b, j.Keys)
	cpuAfter, generatorAfter := usage()
	t.rates = append(t.rates, c.perSecond())
	t.costs = append(t.costs, (cpuAfter-cpu).Seconds()/float64(c.Answers))
	t.cpu += cpuAfter - cpu
	t.load += generatorAfter - generator
}

// highest is the mean of the best quarter: of the turns that nothing else disturbed, where the scheduler left the two
// ends of a connection where they were. On a quiet machine it is a little above the median, on both sides alike.
func highest(all []float64) float64 {
	return meanOfFirst(slices.SortedFunc(slices.Values(all), func(a, b float64) int { return cmp.Compare(b, a) }))
}

// lowest is the same where less is better.
func lowest(all []float64) float64 { return meanOfFirst(slices.Sorted(slices.Values(all))) }

func meanOfFirst(sorted []float64) float64 {
	sorted = sorted[:(len(sorted)+3)/4]
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	return sum / float64(len(sorted))
}
