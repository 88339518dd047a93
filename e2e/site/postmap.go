package site

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Postmap looks keys up in a table, such as "socketmap:inet:127.0.0.1:8461:postfix", with the postmap(1) of this
// Postfix, all of them in one run. The result has those that were found. An error of one key ends the run, and is an
// error with what postmap said; so is a warning.
func (p *Postfix) Postmap(ctx context.Context, table string, keys []string) (map[string]string, error) {
	command := []string{"postmap", "-c", p.Conf, "-q", "-", table}
	if p.root != "" {
		command = append([]string{"chroot", p.root}, command...)
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(keys, "\n") + "\n")
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if complaints.Len() > 0 || err != nil && out.Len() > 0 {
		return nil, fmt.Errorf("postmap: %v: %s", err, strings.TrimSpace(complaints.String()))
	}
	found := make(map[string]string) // without complaints an error only says that nothing was found
	for line := range strings.Lines(out.String()) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if _, twice := found[key]; !ok || twice {
			return nil, fmt.Errorf("postmap: unexpected output: %.300q", line)
		}
		found[key] = value
	}
	return found, nil
}
