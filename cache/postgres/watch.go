package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// pingEvery is how long a connection is silent before it is checked, which is
	// how a dead one is noticed.
	pingEvery = 2 * time.Second
	// retryEvery is how soon Watch tries again after a failure.
	retryEvery = time.Second
)

// The notifications on the channel of changes: the escaped domain after one of
// these.
const (
	messagePut    = "+"
	messageDelete = "-"
)

// Watch implements [cache.Shared]. It listens on a connection of its own. With
// listen=no it calls changed once, with "", and waits.
func (s *Store) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	if s.usable(ctx) != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if !s.place.listen {
		changed("", false)
		<-ctx.Done()
		return
	}
	for lost := false; ctx.Err() == nil; {
		err := s.listen(ctx, changed, func() { lost = false })
		if !lost && ctx.Err() == nil {
			s.report("watch", s.explain(ctx, "watch", err))
		}
		lost = true
		sleep(ctx, retryEvery)
	}
}

// listen calls changed until the connection is lost or ctx ends; found is called
// when the server answers.
func (s *Store) listen(ctx context.Context, changed func(string, bool), found func()) error {
	config := s.pool.Config().ConnConfig.Copy()
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		if len(n.Payload) > 1 {
			changed(unescape(n.Payload[1:]), n.Payload[:1] == messageDelete)
		}
	}
	conn, err := s.connect(ctx, config)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	found()
	changed("", false)
	for {
		silent, cancel := context.WithTimeout(ctx, pingEvery)
		err := conn.PgConn().WaitForNotification(silent)
		cancel()
		if pgconn.Timeout(err) && ctx.Err() == nil {
			answer, cancel := context.WithTimeout(ctx, s.options.Timeout)
			err = conn.Ping(answer)
			cancel()
		}
		if err != nil {
			return err
		}
	}
}

// connect makes a connection that listens.
func (s *Store) connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{s.place.channel()}.Sanitize()); err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// hangUp closes a connection. It does not wait for what the driver does if the
// server does not answer, which is to try to cancel the query for 15 s.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
