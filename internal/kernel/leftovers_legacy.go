package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	legacyTimeout = 30 * time.Second // for one command
	legacyWait    = "10"             // seconds that a command may wait for others that change the rules
)

// legacy is iptables-legacy of one IP family. Its tables can be read, but in practice not be changed, without the command.
type legacy struct {
	place    string                                                           // for messages
	names    string                                                           // file with the names of the tables in use
	commands []string                                                         // that may be iptables-legacy, best first
	read     func(table string) ([]byte, error)                               // the table as the kernel has it
	run      func(context.Context, []byte, ...string) (out string, err error) // runs a command with that as input
}

func removeLegacyLeftovers(ctx context.Context) (removed []string, err error) {
	families := []legacy{
		{
			place: "iptables-legacy ip", names: "/proc/thread-self/net/ip_tables_names",
			commands: []string{"iptables-legacy", "iptables"},
			read:     func(table string) ([]byte, error) { return legacyEntries(unix.AF_INET, unix.IPPROTO_IP, table) },
			run:      runLegacy,
		},
		{
			place: "iptables-legacy ip6", names: "/proc/thread-self/net/ip6_tables_names",
			commands: []string{"ip6tables-legacy", "ip6tables"},
			read:     func(table string) ([]byte, error) { return legacyEntries(unix.AF_INET6, unix.IPPROTO_IPV6, table) },
			run:      runLegacy,
		},
	}
	var errs []error
	for _, f := range families {
		lines, err := f.remove(ctx)
		removed, errs = append(removed, lines...), append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func (l legacy) remove(ctx context.Context) (removed []string, err error) {
	// The kernel makes a table when it is first asked for. What is not in this file shall not be made for the question.
	names, err := os.ReadFile(l.names)
	if err != nil {
		return nil, nil // the kernel does not have them
	}
	var errs []error
	for _, table := range strings.Fields(string(names)) {
		if !slices.Contains(ownTables, table) {
			continue
		}
		line, err := l.removeFrom(ctx, table)
		if line != "" {
			removed = append(removed, line)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func (l legacy) removeFrom(ctx context.Context, table string) (line string, err error) {
	place := l.place + " " + table
	entries, err := l.read(table)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", place, err)
	}
	if !holdsOwnChain(table, entries) {
		return "", nil
	}
	command, err := l.find(ctx)
	if err != nil {
		return "", fmt.Errorf("%s has chains of kube-proxy: run \"kube-proxy --cleanup\" on the node, or restart the node: %w", place, err)
	}
	saved, err := l.run(ctx, nil, command+"-save", "-t", table)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", place, err)
	}
	plan := parseSaved(table, saved).plan()
	if plan.empty() {
		return "", plan.err(place)
	}
	// One command for all of a table changes it at once.
	if _, err := l.run(ctx, plan.restore(table), command+"-restore", "-w", legacyWait, "--noflush"); err != nil {
		return "", fmt.Errorf("remove the chains of kube-proxy from %s: %w", place, err)
	}
	return plan.line(place), plan.err(place)
}

// find returns the name of a command that is iptables-legacy, or begins the names of those that are.
func (l legacy) find(ctx context.Context) (string, error) {
	var errs []error
	for _, c := range l.commands {
		version, err := l.run(ctx, nil, c+"-restore", "--version")
		switch {
		case err != nil:
			errs = append(errs, err)
		case strings.Contains(version, "nf_tables"):
			errs = append(errs, fmt.Errorf("%s is iptables-nft", c))
		default:
			return c, nil
		}
	}
	return "", errors.Join(errs...)
}

// holdsOwnChain looks for the name of a chain of kube-proxy in a table as the kernel has it: text that ends with a zero.
func holdsOwnChain(table string, entries []byte) bool {
	const prefix = "KUBE-" // of all of them
	for {
		at := bytes.Index(entries, []byte(prefix))
		if at < 0 {
			return false
		}
		name, rest, _ := bytes.Cut(entries[at:], []byte{0})
		if isOwnChain(table, string(name)) {
			return true
		}
		entries = rest
	}
}

// parseSaved reads what iptables-save prints.
func parseSaved(table, saved string) chainTable {
	t := chainTable{name: table}
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if chain, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ := strings.Cut(chain, " ")
			t.chains = append(t.chains, name)
		} else if rule, ok := strings.CutPrefix(line, "-A "); ok {
			from, rest, _ := strings.Cut(rule, " ")
			if to := target(rest); to != "" {
				t.jumps = append(t.jumps, jump{from: from, to: to, text: rest})
			}
		}
	}
	return t
}

// target returns what a saved rule leads to: a chain, or a target of iptables such as ACCEPT.
func target(rule string) string {
	list := words(rule)
	for i := 0; i+1 < len(list); i++ {
		switch list[i] {
		case "--comment": // whose text may be anything
			i++
		case "-j", "-g":
			return list[i+1]
		}
	}
	return ""
}

// words splits a saved rule. iptables-save puts double quotes around a word that has spaces, and a backslash before
// quotes and backslashes in it.
func words(rule string) (out []string) {
	var word []byte
	quoted, started := false, false
	for i := 0; i < len(rule); i++ {
		switch c := rule[i]; {
		case c == '\\' && quoted && i+1 < len(rule):
			i++
			word = append(word, rule[i])
		case c == '"':
			quoted, started = !quoted, true
		case c == ' ' && !quoted:
			if started {
				out = append(out, string(word))
			}
			word, started = nil, false
		default:
			word, started = append(word, c), true
		}
	}
	if started {
		out = append(out, string(word))
	}
	return out
}

// restore writes the removal for iptables-restore. To name a chain at the beginning is to empty it.
func (r removal) restore(table string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range r.chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, j := range r.jumps {
		fmt.Fprintf(&b, "-D %s %s\n", j.from, j.text)
	}
	for _, c := range r.chains {
		fmt.Fprintf(&b, "-X %s\n", c)
	}
	b.WriteString("COMMIT\n")
	return b.Bytes()
}

func runLegacy(ctx context.Context, input []byte, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, legacyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w: %s", command[0], err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}
