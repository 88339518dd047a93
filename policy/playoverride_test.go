package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"stsmap/override"
)

// override performs the commands about overrides.
func (s *stage) override(verb string, args []string) error {
	if verb == "uses" {
		if got := strconv.FormatInt(s.rules.All()[0].Uses(), 10); got != args[0] {
			return fmt.Errorf("%s uses", got)
		}
		return nil
	}
	s.rules = nil
	if args[0] != "none" {
		text := fmt.Sprintf("[[override]]\ndomain = %q\naction = %q\n", args[0], args[1])
		if args[1] == "reply" {
			text += "text = \"encrypt\"\n"
		}
		args = args[2:]
		if len(args) > 0 && strings.HasPrefix(args[0], "for=") {
			d, err := time.ParseDuration(args[0][len("for="):])
			if err != nil {
				return err
			}
			text += "until = " + time.Now().Add(d).Format(time.RFC3339) + "\n"
			args = args[1:]
		}
		text += fmt.Sprintf("reason = %q\n", strings.Join(args, " "))
		var err error
		if s.rules, err = override.Parse(text, func(string) error { return nil }); err != nil {
			return errors.New(err.Error())
		}
	}
	s.engine.Override(s.rules)
	return nil
}
