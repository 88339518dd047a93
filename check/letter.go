package check

import (
	"fmt"
	"strings"
	"time"
)

// Letter returns a message to the postmaster of the domain with all findings
// that they have to fix; empty if there are none. The administrator is expected
// to read, sign and send it.
func (r *Report) Letter(now time.Time) string {
	var points []Finding
	for _, f := range r.Findings {
		if f.Who == Them && f.acted() && f.Fix != "" {
			points = append(points, f)
		}
	}
	if len(points) == 0 {
		return ""
	}
	const letter = 72
	var b strings.Builder
	say := func(text string) {
		for _, line := range wrap(text, letter) {
			b.WriteString(line + "\n")
		}
	}
	fmt.Fprintf(&b, "To: postmaster@%s\nSubject: MTA-STS of %s\n\n", r.Domain, r.Domain)
	say("Dear postmaster,")
	b.WriteString("\n")
	say(fmt.Sprintf("our mail server looks at what %s publishes for mail: its MX records, and its MTA-STS policy (RFC 8461). "+
		"On %s it found the following. \"Here\" is our mail server.", r.Domain, now.UTC().Format("2 January 2006, 15:04 UTC")))
	for i, f := range points {
		fmt.Fprintf(&b, "\n%d. ", i+1)
		for j, line := range wrap(f.Seen+".", letter-3) {
			if j > 0 {
				b.WriteString("   ")
			}
			b.WriteString(line + "\n")
		}
		for _, text := range []string{f.Why, f.Fix} {
			if text == "" {
				continue
			}
			for _, line := range wrap(text, letter-3) {
				b.WriteString("   " + line + "\n")
			}
		}
	}
	b.WriteString("\n")
	if r.Failures > 0 {
		say("Until this is repaired, mail from us to your users waits, or is returned.")
	} else {
		say("Mail from us still reaches your users, but is not protected as you meant it to be, or may stop to reach them.")
	}
	b.WriteString("\n")
	say("Your policy is read at https://mta-sts." + r.Domain + "/.well-known/mta-sts.txt, and announced at _mta-sts." + r.Domain + ". After each change of the policy the id in the record has to change, too.")
	b.WriteString("\nKind regards\n")
	return b.String()
}
