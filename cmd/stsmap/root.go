package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"stsmap/config"
)

// defaultConfig is the default path of the configuration. Only there it may be
// missing.
const defaultConfig = "/etc/stsmap/stsmap.toml"

// globals are the flags that every command has.
type globals struct {
	config string // path; empty means STSMAP_CONFIG, or the default one
	json   bool
	quiet  bool
}

func rootCommand(c console) *cobra.Command {
	g := new(globals)
	root := &cobra.Command{
		Use:   "stsmap",
		Short: "MTA-STS policies for Postfix (the sending side)",
		Long: `stsmap answers Postfix's TLS policy lookups with the MTA-STS policies
(RFC 8461) of the domains that mail goes to. In main.cf:

    smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix`,
		SilenceErrors: true,
		// They would make an error of several lines.
		DisableSuggestions: true,
		SilenceUsage:       true,
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	flags := root.PersistentFlags()
	flags.StringVar(&g.config, "config", "", "configuration file (default "+defaultConfig+")")
	flags.BoolVar(&g.json, "json", false, "print results as JSON")
	flags.BoolVar(&g.quiet, "quiet", false, "print no warnings")
	root.AddCommand(
		serveCommand(c, g),
		queryCommand(c, g),
		checkCommand(c, g),
		explainCommand(c, g),
		statusCommand(c, g),
		cacheCommand(c, g),
		warmCommand(c, g),
		overrideCommand(c, g),
		configCommand(c, g),
		doctorCommand(c, g),
		lookAsCommand(),
		healthcheckCommand(c, g),
		versionCommand(c),
	)
	root.SetHelpCommand(helpCommand(c))
	return root
}

// path is the configuration file to read, and whether it may be missing.
func (g *globals) path() (path string, optional bool) {
	if g.config != "" {
		return g.config, false
	}
	if env := os.Getenv("STSMAP_CONFIG"); env != "" {
		return env, false
	}
	return defaultConfig, true
}

// load reads the configuration file and the environment.
func (g *globals) load() (*config.Loaded, error) {
	path, optional := g.path()
	cfg, err := config.Load(path, os.Environ())
	if errors.Is(err, fs.ErrNotExist) && optional {
		cfg, err = config.Load("", os.Environ())
	}
	if err == nil {
		return cfg, nil
	}
	f := &failure{code: exitConfig, err: err}
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.code = exitPermission
	case errors.Is(err, fs.ErrNotExist):
		f.hint = fmt.Sprintf("to start with the defaults: stsmap config default > %s", path)
	default:
		f.hint = "all keys are explained by: stsmap config default"
	}
	return nil, f
}

// server is the address to ask when the command line names none.
func (g *globals) server() (string, error) {
	cfg, err := g.load()
	if err != nil {
		return "", err
	}
	if len(cfg.Listen) == 0 {
		return "", &failure{code: exitConfig, err: errors.New("listen is empty"), hint: "name the daemon's address with --server"}
	}
	return cfg.Listen[0], nil
}
