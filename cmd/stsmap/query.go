package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stsmap/socketmap"
)

// askLimit is how long query waits for one answer: as long as Postfix does.
const askLimit = 100 * time.Second

func queryCommand(c console, g *globals) *cobra.Command {
	var server, name string
	cmd := &cobra.Command{
		Use:   "query DOMAIN...",
		Short: "Ask the daemon as Postfix would",
		Long: `Ask the daemon as Postfix would, and print its reply to each key, one a line.

A key is what Postfix sends: a domain, or a next-hop such as [relay.example]:587.
The exit code is 0 if every reply was OK or NOTFOUND, 1 if one was a failure,
and 69 if the daemon cannot be reached.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if server == "" {
				var err error
				if server, err = g.server(); err != nil {
					return err
				}
			}
			return query(cmd.Context(), c, g.json, server, name, keys)
		},
	}
	cmd.Flags().StringVar(&server, "server", "", "address of the daemon, host:port or unix:/path (default: the first of listen)")
	cmd.Flags().StringVar(&name, "map", "postfix", "socketmap name to ask for")
	completeFlag(cmd, "map", g.mapNames())
	cmd.ValidArgsFunction = g.domains()
	return cmd
}

// query asks server for all keys over one connection.
func query(ctx context.Context, c console, asJSON bool, server, name string, keys []string) error {
	client, err := socketmap.Dial(ctx, socketmap.Reachable(server))
	if err != nil {
		return unreachable(server, err)
	}
	defer client.Close()
	code := 0
	for _, key := range keys {
		once, cancel := context.WithTimeout(ctx, askLimit)
		reply, err := client.Do(once, name, key)
		cancel()
		if errors.Is(err, socketmap.ErrBadRequest) {
			return &failure{code: exitUsage, err: fmt.Errorf("%.40s: %w", key, err)}
		}
		if err != nil {
			return unreachable(server, err)
		}
		if reply.Status != socketmap.OK && reply.Status != socketmap.NotFound {
			code = exitFailed
		}
		printReply(c, asJSON, key, reply)
	}
	if code != 0 {
		return &failure{code: code, err: errSilent}
	}
	return nil
}

func printReply(c console, asJSON bool, key string, reply socketmap.Reply) {
	if asJSON {
		json.NewEncoder(c.out).Encode(struct {
			Key    string `json:"key"`
			Status string `json:"status"`
			Text   string `json:"text"`
		}{key, reply.Status.String(), reply.Text})
		return
	}
	fmt.Fprintln(c.out, escaped(strings.TrimRight(reply.Status.String()+" "+reply.Text, " ")))
}

// unreachable says that the daemon gave no answer, or that server can be none.
func unreachable(server string, err error) error {
	if addr, ok := errors.AsType[*net.AddrError](err); ok {
		return &failure{code: exitUsage, err: fmt.Errorf("%q is not the address of a daemon: %s", server, addr.Err), hint: "host:port or unix:/path"}
	}
	return &failure{
		code: exitUnreachable,
		err:  fmt.Errorf("no answer from the daemon at %s: %w", server, err),
		hint: "is it running? it is started by: stsmap serve",
	}
}
