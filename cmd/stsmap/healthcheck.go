package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"stsmap/socketmap"
)

// healthLimit is how long the daemon may take to answer a question that needs
// nothing but itself.
const healthLimit = 5 * time.Second

// noDomain is a key that is answered without any I/O.
const noDomain = "."

func healthcheckCommand(c console, g *globals) *cobra.Command {
	var server string
	var ready bool
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Find out whether the daemon answers",
		Long: `Find out whether the daemon answers, by a question on its own socket that
needs neither network nor store: what /livez says at admin.listen. Silent and 0 if it
does, 69 if not. With --ready find out whether configuration, store and resolver work as
well, which is what /readyz says; the daemon is asked over its control socket. 1 if one of
them does not: mail is answered all the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ready {
				return checkReady(cmd.Context(), g)
			}
			if server == "" {
				var err error
				if server, err = g.server(); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthLimit)
			defer cancel()
			if err := ping(ctx, socketmap.Reachable(server)); err != nil {
				return unreachable(server, err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "find out whether all that the daemon needs works, too")
	cmd.Flags().StringVar(&server, "server", "", "address of the daemon, host:port or unix:/path (default: the first of listen)")
	return cmd
}

// checkReady asks the daemon whether all works that it needs.
func checkReady(ctx context.Context, g *globals) error {
	client, path, err := g.controlClient()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	s, err := client.Status(ctx)
	if err != nil {
		return uncontrolled(path, err)
	}
	var failures []error
	for _, c := range s.Checks {
		if c.Error != "" {
			failures = append(failures, fmt.Errorf("not ready: %s: %s", c.Name, c.Error))
		}
	}
	if len(failures) == 0 {
		return nil
	}
	return &failure{code: exitFailed, err: errors.Join(failures...)}
}

// ping asks the daemon at address a question that needs only itself.
func ping(ctx context.Context, address string) error {
	client, err := socketmap.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer client.Close()
	reply, err := client.Do(ctx, "postfix", noDomain)
	if err != nil {
		return err
	}
	if reply.Status != socketmap.NotFound {
		return fmt.Errorf("unexpected answer %s", reply.Status)
	}
	return nil
}

// pingAll asks at every address. A UNIX socket that belongs to Postfix can be
// closed to the daemon's own user; that is no sign of ill health.
func pingAll(ctx context.Context, addresses []string) error {
	var failures []error
	for _, a := range addresses {
		if err := ping(ctx, a); err != nil && !errors.Is(err, fs.ErrPermission) {
			failures = append(failures, fmt.Errorf("%s: %w", a, err))
		}
	}
	return errors.Join(failures...)
}
