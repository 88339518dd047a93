package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stsmap/admin"
	"stsmap/override"
)

const (
	// completeLimit bounds the time after a key press.
	completeLimit = 500 * time.Millisecond
	// maxCompleted bounds how many words are offered: a user does not read
	// more.
	maxCompleted = 500
)

// A completer says what can stand where the cursor is. What goes wrong is not
// said: it would be in the middle of a command that is being typed.
type completer func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// offering returns a completer for what is offered beside the words that are
// there already.
func offering(offer func(ctx context.Context, begun string) []string) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeLimit)
		defer cancel()
		words := offer(ctx, begun)
		words = slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, begun) || slices.Contains(args, w) })
		slices.Sort(words)
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// once is a completer for a command that takes one argument.
func once(complete completer) completer {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// domains completes the cached domains.
func (g *globals) domains() completer { return offering(g.remembered) }

// remembered returns the cached domains that begin with begun.
func (g *globals) remembered(ctx context.Context, begun string) []string {
	if strings.Contains(begun, "*") {
		return nil
	}
	client, _, err := g.controlClient()
	if err != nil {
		return nil
	}
	var all []string
	for rec, err := range client.List(ctx, admin.Filter{Match: begun + "*"}) {
		if err != nil || len(all) == maxCompleted {
			break
		}
		all = append(all, rec.Domain)
	}
	return all
}

// overrides completes the domains of the overrides.
func (g *globals) overrides() completer {
	return offering(func(context.Context, string) []string { return g.overridden() })
}

// overridden returns the domains that have an override.
func (g *globals) overridden() []string {
	path, err := g.overridesFile()
	if err != nil {
		return nil
	}
	table, err := override.Load(path, func(string) error { return nil })
	if err != nil {
		return nil
	}
	var all []string
	for _, o := range table.All() {
		all = append(all, o.Domain)
	}
	return all
}

// both completes the domains of the overrides and the cached ones.
func (g *globals) both() completer {
	return offering(func(ctx context.Context, begun string) []string {
		return slices.Compact(slices.Sorted(slices.Values(append(g.remembered(ctx, begun), g.overridden()...))))
	})
}

// mapNames completes the names of socketmaps.
func (g *globals) mapNames() completer {
	return offering(func(context.Context, string) []string {
		cfg, err := g.load()
		if err != nil {
			return nil
		}
		return slices.Collect(maps.Keys(postfixMaps(&cfg.Config)))
	})
}

// words completes what there is to choose from.
func words(all ...string) completer {
	return offering(func(context.Context, string) []string { return slices.Clone(all) })
}

// completeFlag has the value of a flag completed. That fails only for a flag that
// the command does not have, which is a bug.
func completeFlag(cmd *cobra.Command, flag string, complete completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}
