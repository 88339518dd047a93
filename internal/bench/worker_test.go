package bench

import (
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Worker is a process beside the daemon: a server to compare with, or a load generator. Its exported
// methods are those that benchmarks call, as net/rpc wants them. It ends with the benchmark that started it.
type Worker struct{ stop chan struct{} } // closed by Stop

// serveCalls is the main function of a Worker.
func serveCalls() error {
	server := rpc.NewServer()
	if err := server.Register(&Worker{stop: make(chan struct{})}); err != nil {
		return err
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
	return nil
}

// pipes are both directions of a connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// A process is how a benchmark sees a Worker.
type process struct {
	client *rpc.Client
	pid    int
}

// spawn starts a Worker.
func spawn(b testing.TB) *process {
	self, err := os.Executable()
	check(b, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(b, err)
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	p := &process{rpc.NewClient(pipes{out, in}), cmd.Process.Pid}
	b.Cleanup(func() {
		p.client.Close()
		_ = cmd.Process.Kill() // it could be amid a call
		_ = cmd.Wait()         // "signal: killed"
	})
	return p
}

// call makes a Worker do something, and waits for it.
func (p *process) call(b testing.TB, method string, args, result any) {
	b.Helper()
	if err := p.client.Call("Worker."+method, args, result); err != nil {
		b.Fatalf("%s: %v", method, err)
	}
}

// run has a load generator do a job.
func (p *process) run(b testing.TB, method string, j Job) (c Counts) {
	b.Helper()
	p.call(b, method, j, &c)
	return c
}

// start does not wait as run does; end stops a job that has no end of its own, and returns what came of it.
func (p *process) start(b testing.TB, method string, j Job) (end func(stop bool) Counts) {
	var c Counts
	pending := p.client.Go("Worker."+method, j, &c, nil)
	return func(stop bool) Counts {
		if stop {
			p.call(b, "Stop", struct{}{}, nil)
		}
		<-pending.Done
		check(b, pending.Error)
		return c
	}
}

// cpuTime is what a process has used so far. /proc/PID/stat has the same in steps of 10 ms, which is too coarse for
// turns of 60 ms.
func cpuTime(pid int) (time.Duration, error) {
	// The id of a process's clock is made as clock_getcpuclockid(3) does it: CPUCLOCK_SCHED is 2.
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// A load generator counts each answer, and tells right ones from wrong ones; Hang and Probe end by Stop.
func TestLoad(t *testing.T) {
	addr := "unix:" + t.TempDir() + "/echo"
	spawn(t).call(t, "Echo", EchoServer{[]string{addr}, []byte("4:OK x,")}, nil)
	load, keys := spawn(t), Series{policyNow, 100000, 100}
	job := Job{Addr: addr, Conns: 4, Keys: keys, Time: 10 * time.Millisecond, Pace: time.Millisecond}
	if c := load.run(t, "Each", job); c.Answers != 100 || c.Right != 100 || c.Median <= 0 || c.Median > c.Slowest || c.Slowest > c.Took {
		t.Errorf("each: %+v", c)
	}
	if c := load.run(t, "Rate", job); c.Answers < job.Conns || c.Right != c.Answers || c.Took < job.Time {
		t.Errorf("rate: %+v", c)
	}
	job.Keys.Pattern = noneNow // of which "OK" is no right answer
	if c := load.run(t, "Each", job); c.Answers != 100 || c.Right != 0 {
		t.Errorf("each, wrong answers: %+v", c)
	}
	if c := spawn(t).start(t, "Hang", job)(true); c.Answers > 100 {
		t.Errorf("hang: %+v", c)
	}
	spawn(t).start(t, "Probe", job)(true)
}
