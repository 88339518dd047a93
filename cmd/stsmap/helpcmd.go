package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"stsmap/check"
	"stsmap/doctor"
)

// helpCommand explains commands, as cobra's own does, and what the names of
// checks mean.
func helpCommand(c console) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND|CHECK]",
		Short: "Explain a command, or a check such as STS-H05",
		Long: `Explain a command, as its --help does, or one of the checks of "stsmap check" or
"stsmap doctor" by its name, such as STS-H05 or LOC-05.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if e, ok := check.Lookup(args[0]); ok {
					_, err := fmt.Fprintf(c.out, "%s  %s\n\n%s\n", e.ID, e.Title, e.Text)
					return written(err)
				}
				if title, ok := titleOf(args[0]); ok {
					_, err := fmt.Fprintf(c.out, "%s  %s\n\nIt is made by: stsmap doctor %[1]s. All of them are in stsmap(8), DIAGNOSTICS.\n", strings.ToUpper(args[0]), title)
					return written(err)
				}
			}
			about, _, err := cmd.Root().Find(args)
			if err != nil || about == nil {
				return fmt.Errorf("there is no command and no check %q", strings.Join(args, " "))
			}
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, sub := range cmd.Root().Commands() {
				if sub.IsAvailableCommand() {
					words = append(words, sub.Name()+"\t"+sub.Short)
				}
			}
			for _, e := range check.Catalogue() {
				words = append(words, e.ID+"\t"+e.Title)
			}
			for _, e := range doctor.Checks() {
				words = append(words, e.ID+"\t"+e.Title)
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// titleOf says what a check of doctor looks at.
func titleOf(id string) (title string, ok bool) {
	for _, c := range doctor.Checks() {
		if strings.EqualFold(c.ID, id) {
			return c.Title, true
		}
	}
	return "", false
}
