package doctor

import (
	"fmt"
	"slices"
	"strings"

	"stsmap/postfix/postconf"
)

// quoted is text as one word of a shell.
func quoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:=") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// postconfCommand is a command of that name for the instance, up to its arguments.
func postconfCommand(s *postconf.Setup) string { return "postconf " + instance(s) }

// instance is what tells a command of Postfix which instance is meant.
func instance(s *postconf.Setup) string {
	if s.Directory == "" {
		return ""
	}
	return "-c " + quoted(s.Directory) + " "
}

// reload has Postfix read its configuration.
func reload(s *postconf.Setup) string { return "postfix " + instance(s) + "reload" }

// set gives a parameter a value: in main.cf, or in master.cf for those of the
// services that have one of their own. Postfix is reloaded then.
func set(s *postconf.Setup, c cohort, name, value string) []string {
	var lines []string
	if c.inherits {
		lines = append(lines, fmt.Sprintf("%s-e %s", postconfCommand(s), quoted(name+" = "+value)))
	}
	for _, service := range c.own {
		lines = append(lines, fmt.Sprintf("%s-P %s", postconfCommand(s), quoted(service+"/"+name+"="+value)))
	}
	return append(lines, reload(s))
}

// inherit has services do as main.cf says.
func inherit(s *postconf.Setup, c cohort, name string) []string {
	var lines []string
	for _, service := range c.own {
		lines = append(lines, fmt.Sprintf("%s-PX %s", postconfCommand(s), quoted(service+"/"+name)))
	}
	return append(lines, reload(s))
}

// A cohort is the services that have the same values for some parameters, and
// the first of them from the same place.
type cohort struct {
	values   []string
	services []postconf.Service
	inherits bool     // the first value is that of main.cf
	own      []string // the names of the services that have one of their own
}

// cohorts sorts services by their values for the parameters.
func cohorts(s *postconf.Setup, services []postconf.Service, parameters ...string) []cohort {
	var all []cohort
	for _, service := range services {
		var values []string
		for _, p := range parameters {
			values = append(values, s.Value(service, p))
		}
		_, own := service.Own[parameters[0]]
		at := slices.IndexFunc(all, func(c cohort) bool { return c.inherits == !own && slices.Equal(c.values, values) })
		if at < 0 {
			all = append(all, cohort{values: values, inherits: !own})
			at = len(all) - 1
		}
		c := &all[at]
		c.services = append(c.services, service)
		if own {
			c.own = append(c.own, service.Name)
		}
	}
	return all
}

// names lists services.
func names(services []postconf.Service) string {
	var all []string
	for _, s := range services {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}

// mailers are the services that send mail by SMTP. Those of lmtp(8) have
// parameters of their own, and MTA-STS is not about them.
func mailers(s *postconf.Setup) []postconf.Service { return running(s, "smtp") }

// running are the services that run a program.
func running(s *postconf.Setup, program string) []postconf.Service {
	var some []postconf.Service
	for _, service := range s.Services {
		if service.Program == program {
			some = append(some, service)
		}
	}
	return some
}

// where says which services a finding is about: in words that stand before it,
// and which instance, if there are several.
func (e *exam) where(s *postconf.Setup, services []postconf.Service) string {
	return e.which(s) + names(services) + ": "
}

// which says which instance is meant, if there are several.
func (e *exam) which(s *postconf.Setup) string {
	dir, _ := s.Main("config_directory")
	if len(e.setups) < 2 || dir == "" {
		return ""
	}
	return dir + ": "
}

// count is a number with what is counted.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// authorities counts certificates of them.
func authorities(n int) string {
	return count(n, "certification authority", "certification authorities")
}

// eachSetup makes a check on each instance of Postfix that has services for it.
func (e *exam) eachSetup(services func(*postconf.Setup) []postconf.Service, make func(*postconf.Setup, []postconf.Service) []Result) []Result {
	if len(e.setups) == 0 {
		return []Result{e.noSetup()}
	}
	var all []Result
	for _, s := range e.setups {
		if some := services(s); len(some) > 0 {
			all = append(all, make(s, some)...)
		}
	}
	if e.setupBy != nil {
		all = append(all, e.noSetup())
	}
	if len(all) == 0 {
		return []Result{skip("no service in master.cf runs smtp(8); see LOC-02")}
	}
	return all
}
