package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"stsmap/e2e/site"
	"stsmap/socketmap"
)

// An impostor is in the place of the daemon, and answers every lookup with the same; or with nothing, and closes the
// connection.
type impostor struct {
	listener net.Listener
	server   *socketmap.Server
	running  sync.WaitGroup
}

// impersonate has an impostor answer in the place of the daemon, which is removed: OK and a text, or nothing.
func impersonate(p *play, ctx context.Context, rest string) {
	i := p.usurp(ctx)
	if rest == "nothing" {
		i.running.Go(i.hangUp)
		return
	}
	text, ok := strings.CutPrefix(rest, "OK ")
	if !ok {
		p.fatalf("neither OK TEXT nor nothing")
	}
	reply := socketmap.Reply{Status: socketmap.OK, Text: text}
	i.serve(func(context.Context, socketmap.Request) socketmap.Reply { return reply })
}

// usurp puts an impostor, which does nothing yet, into the place of the daemon or of the impostor before.
func (p *play) usurp(ctx context.Context) *impostor {
	if p.impostor != nil {
		p.must(p.impostor.stop(ctx))
		p.impostor = nil
	} else {
		p.must(errors.Join(p.site.Daemon.Stop(ctx), p.site.Daemon.Close()))
	}
	l, err := net.Listen("tcp", site.LookupAddr)
	p.must(err)
	p.impostor = &impostor{listener: l}
	return p.impostor
}

// serve answers lookups.
func (i *impostor) serve(answer socketmap.HandlerFunc) {
	i.server = &socketmap.Server{Handler: answer}
	i.running.Go(func() { _ = i.server.Serve(i.listener) })
}

// hangUp closes each connection when it was asked something.
func (i *impostor) hangUp() {
	for {
		conn, err := i.listener.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadAtLeast(conn, make([]byte, 1), 1)
		conn.Close()
	}
}

func (i *impostor) stop(ctx context.Context) error {
	defer i.running.Wait()
	if i.server != nil {
		return i.server.Shutdown(ctx)
	}
	return i.listener.Close()
}

// socket changes who may connect to the socket in the jail.
func socket(p *play, _ context.Context, rest string) {
	mode, err := strconv.ParseUint(rest, 8, 9)
	p.must(err)
	p.must(os.Chmod(filepath.Join(p.site.Postfix.Jail, "stsmap", "map.sock"), os.FileMode(mode)))
}
