package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Exec replaces this process by a program of the host in the network namespace of a machine or pod, as named for
// Namespace: input, output, signals and exit code are the program's own. It returns only an error.
func (c *Cluster) Exec(target string, argv []string) error {
	ns, err := c.Namespace(target)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	err = ns.Do(func() error { return syscall.Exec(path, argv, os.Environ()) })
	return fmt.Errorf("run %s in %s: %w", path, target, err)
}
