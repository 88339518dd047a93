package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stsmap/config"
	"stsmap/override"
	"stsmap/postfix"
	"stsmap/stsfetch"
)

func configCommand(c console, g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, show, print or import the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(configCheckCommand(c, g), configShowCommand(c, g), configDefaultCommand(c), configImportCommand(c, g))
	return cmd
}

func configCheckCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find every mistake in the configuration",
		Long: `Find every mistake in the configuration file, the environment and the file of the
overrides, and say where it is. Silent and 0 if there is none, 78 otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			if _, err := resolverRoots(cfg.DNS.CAFile); err != nil {
				return err
			}
			if err := checkAnchors(c, cfg.Fetch.CAFile); err != nil {
				return err
			}
			if err := checkProxy(cfg.Fetch.Proxy); err != nil {
				return err
			}
			if err := checkStore(cfg.Cache.Store); err != nil {
				return err
			}
			if _, err := override.Load(cfg.Overrides.File, postfix.CheckText); err != nil {
				return overrideTrouble(err)
			}
			return nil
		},
	}
}

// checkAnchors checks fetch.ca_file, and warns of each certificate in it that is not
// used.
func checkAnchors(c console, path string) error {
	if path == "" {
		return nil
	}
	_, err := fileAnchors("fetch.ca_file", path, func(read stsfetch.AnchorsRead) {
		for _, skipped := range read.Skipped {
			c.warn("fetch.ca_file: %s: %v; it is ignored", path, skipped)
		}
	})
	return err
}

func configShowCommand(c console, g *globals) *cobra.Command {
	var changed, origin bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the settings in force",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			settings := cfg.Settings()
			if changed {
				settings = onlyChanged(settings)
			}
			if g.json {
				return written(showJSON(c.out, settings))
			}
			return written(showText(c.out, settings, origin))
		},
	}
	cmd.Flags().BoolVar(&changed, "changed", false, "only settings that differ from the defaults")
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each setting comes from")
	return cmd
}

// written is the result of a command that only had to write.
func written(err error) error {
	if err == nil {
		return nil
	}
	return &failure{code: exitFailed, err: err}
}

func onlyChanged(all []config.Setting) []config.Setting {
	var some []config.Setting
	for _, s := range all {
		if s.Changed {
			some = append(some, s)
		}
	}
	return some
}

func showText(w io.Writer, settings []config.Setting, origin bool) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, s := range settings {
		line := s.Key + " = " + s.Value
		if origin {
			line += "\t# " + s.Origin
		}
		fmt.Fprintln(table, line)
	}
	return table.Flush()
}

func showJSON(w io.Writer, settings []config.Setting) error {
	out := json.NewEncoder(w)
	for _, s := range settings {
		err := out.Encode(struct {
			Key     string `json:"key"`
			Value   string `json:"value"`
			Origin  string `json:"origin"`
			Changed bool   `json:"changed"`
		}{s.Key, s.Value, s.Origin, s.Changed})
		if err != nil {
			return err
		}
	}
	return nil
}

func configDefaultCommand(c console) *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print the configuration file that explains every key",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(c.out, config.Text())
			return written(err)
		},
	}
}
