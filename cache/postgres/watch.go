package postgres

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// pollInterval is how often changes are asked for, listening or not: it is
	// also how a connection is found dead that does not say so.
	pollInterval = 2 * time.Second
	// pause is how long others may go on changing things before a notification
	// is followed by a question.
	pause = 50 * time.Millisecond
	// retryEvery is how soon a lost server is tried again.
	retryEvery = time.Second
	// manyChanges is how many are told one by one.
	manyChanges = 10000
)

// Watch implements [cache.Shared]. It asks the table changes, every two seconds
// and, if it can listen, whenever it is notified; what a notification says is
// not used, so that there is one way for a change to be seen and none to be
// missed. Where the connection for listening cannot be had, one of the pool has
// to do. It begins with "", as soon as the server answers for the first time.
func (s *Store) Watch(ctx context.Context, changed func(domain string, deleted bool)) {
	if s.usable(ctx) != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	r := &reader{store: s, changed: changed}
	lost := false
	for ctx.Err() == nil {
		err := r.follow(ctx)
		// Perhaps it was only that connection.
		if pollErr := r.poll(ctx, s.pool); pollErr == nil {
			err = nil
		}
		if err != nil && !lost && ctx.Err() == nil {
			s.report("watch", s.explain(ctx, "watch", err))
		}
		lost = err != nil
		sleep(ctx, retryEvery)
	}
}

// A reader reads the table changes, each once.
type reader struct {
	store   *Store
	changed func(domain string, deleted bool)

	// seen is the snapshot of the last reading; empty: there was none.
	seen string
	// started is when the server did. After a crash, or with a standby in its
	// place, transactions may have been lost, and their numbers used again.
	started string
}

// follow reads changes for as long as the connection lasts.
func (r *reader) follow(ctx context.Context) error {
	if !r.store.place.listen {
		for {
			if err := r.poll(ctx, r.store.pool); err != nil {
				return err
			}
			sleep(ctx, r.store.pollEvery)
		}
	}
	heard := false
	conn, err := r.listen(ctx, func() { heard = true })
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for {
		heard = false
		if err := r.poll(ctx, conn); err != nil {
			return err
		}
		if !heard {
			if err := wait(ctx, conn, r.store.pollEvery); err != nil {
				return err
			}
		}
		if heard {
			sleep(ctx, pause)
		}
	}
}

// listen makes a connection that calls heard when it is notified.
func (r *reader) listen(ctx context.Context, heard func()) (*pgx.Conn, error) {
	ctx, cancel := r.store.bound(ctx)
	defer cancel()
	config := r.store.pool.Config().ConnConfig.Copy()
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { heard() }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+r.store.place.channel()); err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// wait returns when there is a notification, or it is time to ask anyway.
func wait(ctx context.Context, conn *pgx.Conn, atMost time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	err := conn.PgConn().WaitForNotification(waiting)
	if pgconn.Timeout(err) && ctx.Err() == nil {
		return nil
	}
	return err
}

func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
	<-conn.PgConn().CleanupDone()
}

// All of it is one statement, so that it has one snapshot: what it does not see
// is what the next reading is about. There is a gap if something was removed
// that the last reading did not see.
const sqlChanges = `
SELECT pg_current_snapshot()::text, extract(epoch FROM pg_postmaster_start_time())::text,
	pg_snapshot_xmax(trimmed) > pg_snapshot_xmax($1::text::pg_snapshot)
		OR EXISTS (SELECT FROM pg_snapshot_xip($1::text::pg_snapshot) x WHERE pg_visible_in_snapshot(x, trimmed)),
	news.domain
FROM stsmap.feed LEFT JOIN (
	SELECT domain FROM stsmap.changes
	WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
	LIMIT $2::bigint
) news ON true`

// endOfTime is a snapshot that has seen everything.
const endOfTime = "9223372036854775807:9223372036854775807:"

// poll reads what has changed, and tells of it.
func (r *reader) poll(ctx context.Context, db database) error {
	ctx, cancel := r.store.bound(ctx)
	defer cancel()
	if err := r.store.ready(ctx); err != nil {
		return err
	}
	rows, err := db.Query(ctx, r.store.in(sqlChanges), cmp.Or(r.seen, endOfTime), int64(manyChanges))
	if err != nil {
		return err
	}
	var gap bool
	var now, started string
	var domain *string
	var news []string
	_, err = pgx.ForEachRow(rows, []any{&now, &started, &gap, &domain}, func() error {
		if domain != nil {
			news = append(news, *domain)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Without now somebody has emptied the table feed: nothing can be told apart.
	if r.seen == "" || now == "" || gap || started != r.started || len(news) >= manyChanges {
		news = []string{""}
	}
	r.seen, r.started = now, started
	for _, domain := range news {
		// No domain is written with this prefix (see escape).
		rest, deleted := strings.CutPrefix(domain, "%!")
		r.changed(unescape(rest), deleted)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
