package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A process is this program in a role. It is told what to do in JSON values on its standard input, answers them on its
// standard output, and ends when there are no more.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// An answer is what comes back for a call.
type answer[A any] struct {
	Value A
	Error string
}

// spawn starts a process.
func (b *bench) spawn(role string) (*process, error) {
	cmd := exec.Command(b.self, "-role", role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}, nil
}

// end ends the process and waits for it.
func (p *process) end() {
	p.in.Close()
	endWithin(p.cmd, 5*time.Second)
}

// endWithin waits for a process that was asked to end, and kills it if it does not.
func endWithin(cmd *exec.Cmd, limit time.Duration) error {
	kill := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	return cmd.Wait()
}

// send makes a call, and receive waits for its answer.
func (p *process) send(call any) error { return p.enc.Encode(call) }

func receive[A any](p *process) (A, error) {
	var a answer[A]
	if err := p.dec.Decode(&a); err != nil {
		return a.Value, fmt.Errorf("%s %s: %w", p.cmd.Args[1], p.cmd.Args[2], err)
	}
	if a.Error != "" {
		return a.Value, errors.New(a.Error)
	}
	return a.Value, nil
}

// call does both.
func call[A any](p *process, q any) (A, error) {
	if err := p.send(q); err != nil {
		var none A
		return none, err
	}
	return receive[A](p)
}

// answerCalls is the main loop of a role: it gives each call to handle, with those that follow, of which handle may
// take some for itself.
func answerCalls[Q, A any](handle func(q Q, next <-chan Q) (A, error)) error {
	calls := make(chan Q)
	var broken error // good once calls is closed
	go func() {
		defer close(calls)
		dec := json.NewDecoder(os.Stdin)
		for {
			var q Q
			if err := dec.Decode(&q); err != nil {
				if !errors.Is(err, io.EOF) {
					broken = err
				}
				return
			}
			calls <- q
		}
	}()
	enc := json.NewEncoder(os.Stdout)
	for q := range calls {
		value, err := handle(q, calls)
		a := answer[A]{Value: value}
		if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return broken
}
