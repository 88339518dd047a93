package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"stsmap/migrate"
)

func configImportCommand(c console, g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Make a configuration of that of another program",
		Long: `Read FILE, a configuration of postfix-tlspol (/etc/postfix-tlspol/config.yaml) or
postfix-mta-sts-resolver (/etc/mta-sts-daemon.yml), or standard input if FILE is -,
and print one for stsmap that does the same. What it cannot do, or a person has to,
is said on standard error with the line in FILE. What those programs remember is not
imported.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readImport(args[0])
			if err != nil {
				return err
			}
			result, err := migrate.Import(args[0], data)
			if err != nil {
				return &failure{code: exitConfig, err: err}
			}
			if g.json {
				return written(importJSON(c.out, result))
			}
			// The notes come last: a user who redirects neither stream sees them at the end.
			if _, err := io.WriteString(c.out, result.Text); err != nil {
				return written(err)
			}
			for _, n := range result.Notes {
				if !g.quiet {
					fmt.Fprintf(c.err, "stsmap: %s\n", escaped(fmt.Sprintf("%s:%d: %s: %s", args[0], n.Line, n.Key, n.Text)))
				}
			}
			return nil
		},
	}
}

// readImport reads the file, or standard input. A file that cannot be read is as bad as one that cannot
// be understood, as in config check.
func readImport(path string) ([]byte, error) {
	if path == "-" {
		data, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		return data, written(err)
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &failure{code: exitPermission, err: err}
	case err != nil:
		return nil, &failure{code: exitConfig, err: err}
	}
	return data, nil
}

func importJSON(w io.Writer, result *migrate.Result) error {
	type note struct {
		Line int    `json:"line"`
		Key  string `json:"key"`
		Text string `json:"text"`
	}
	notes := []note{} // an empty list, and not null
	for _, n := range result.Notes {
		notes = append(notes, note(n))
	}
	return json.NewEncoder(w).Encode(struct {
		From  string `json:"from"`
		TOML  string `json:"toml"`
		Notes []note `json:"notes"`
	}{result.From, result.Text, notes})
}
