package main

import (
	_ "embed"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed VERSION
var release string

// version is the release, and for a build from a repository the commit.
func version() string {
	if r := revision(); r != "" {
		return strings.TrimSpace(release) + "+" + r
	}
	return strings.TrimSpace(release)
}

// revision is the commit of a build from a repository, or empty.
func revision() (r string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			r += s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			r += "-dirty"
		}
	}
	return r
}

func versionCommand(c console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(c.out, "stsmap %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
