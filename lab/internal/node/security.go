package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// security is what a container's processes may: the part of a securityContext that the lab knows.
type security struct {
	Privileged   bool
	ReadOnlyRoot bool
	NoNewPrivs   bool
	Capabilities []uintptr // that root has; others have none, as with containerd
	UID, GID     uint32
	Groups       []uint32 // beside GID
}

// capabilities are the kernel's, by the names that Kubernetes takes.
var capabilities = [...]string{
	unix.CAP_CHOWN: "CHOWN", unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE", unix.CAP_DAC_READ_SEARCH: "DAC_READ_SEARCH",
	unix.CAP_FOWNER: "FOWNER", unix.CAP_FSETID: "FSETID", unix.CAP_KILL: "KILL", unix.CAP_SETGID: "SETGID",
	unix.CAP_SETUID: "SETUID", unix.CAP_SETPCAP: "SETPCAP", unix.CAP_LINUX_IMMUTABLE: "LINUX_IMMUTABLE",
	unix.CAP_NET_BIND_SERVICE: "NET_BIND_SERVICE", unix.CAP_NET_BROADCAST: "NET_BROADCAST", unix.CAP_NET_ADMIN: "NET_ADMIN",
	unix.CAP_NET_RAW: "NET_RAW", unix.CAP_IPC_LOCK: "IPC_LOCK", unix.CAP_IPC_OWNER: "IPC_OWNER",
	unix.CAP_SYS_MODULE: "SYS_MODULE", unix.CAP_SYS_RAWIO: "SYS_RAWIO", unix.CAP_SYS_CHROOT: "SYS_CHROOT",
	unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_SYS_PACCT: "SYS_PACCT", unix.CAP_SYS_ADMIN: "SYS_ADMIN",
	unix.CAP_SYS_BOOT: "SYS_BOOT", unix.CAP_SYS_NICE: "SYS_NICE", unix.CAP_SYS_RESOURCE: "SYS_RESOURCE",
	unix.CAP_SYS_TIME: "SYS_TIME", unix.CAP_SYS_TTY_CONFIG: "SYS_TTY_CONFIG", unix.CAP_MKNOD: "MKNOD", unix.CAP_LEASE: "LEASE",
	unix.CAP_AUDIT_WRITE: "AUDIT_WRITE", unix.CAP_AUDIT_CONTROL: "AUDIT_CONTROL", unix.CAP_SETFCAP: "SETFCAP",
	unix.CAP_MAC_OVERRIDE: "MAC_OVERRIDE", unix.CAP_MAC_ADMIN: "MAC_ADMIN", unix.CAP_SYSLOG: "SYSLOG",
	unix.CAP_WAKE_ALARM: "WAKE_ALARM", unix.CAP_BLOCK_SUSPEND: "BLOCK_SUSPEND", unix.CAP_AUDIT_READ: "AUDIT_READ",
	unix.CAP_PERFMON: "PERFMON", unix.CAP_BPF: "BPF", unix.CAP_CHECKPOINT_RESTORE: "CHECKPOINT_RESTORE",
}

// usualCapabilities are what containerd leaves a container that says nothing.
var usualCapabilities = [...]string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// securityOf returns what the processes of a container may.
func securityOf(pod *v1.Pod, c *v1.Container) (security, error) {
	var s security
	ps, cs := pod.Spec.SecurityContext, c.SecurityContext
	if ps == nil {
		ps = &v1.PodSecurityContext{}
	}
	if cs == nil {
		cs = &v1.SecurityContext{}
	}
	s.Privileged = is(cs.Privileged)
	s.ReadOnlyRoot = is(cs.ReadOnlyRootFilesystem)
	s.NoNewPrivs = cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation
	s.UID = number(ps.RunAsUser, cs.RunAsUser)
	s.GID = number(ps.RunAsGroup, cs.RunAsGroup)
	for _, g := range ps.SupplementalGroups {
		s.Groups = append(s.Groups, uint32(g))
	}
	if ps.FSGroup != nil {
		s.Groups = append(s.Groups, uint32(*ps.FSGroup))
	}
	nonRoot := is(ps.RunAsNonRoot)
	if cs.RunAsNonRoot != nil {
		nonRoot = *cs.RunAsNonRoot
	}
	if nonRoot && s.UID == 0 {
		return s, errors.New("container has runAsNonRoot and would run as root: set runAsUser, as the lab's images have no user")
	}
	names, err := capabilitiesOf(s.Privileged, cs.Capabilities)
	for n, name := range capabilities {
		if names[name] {
			s.Capabilities = append(s.Capabilities, uintptr(n))
		}
	}
	return s, err
}

func is(b *bool) bool { return b != nil && *b }

// number returns the last of some numbers that is given, 0 if none is.
func number(given ...*int64) (n uint32) {
	for _, g := range given {
		if g != nil {
			n = uint32(*g)
		}
	}
	return n
}

// capabilitiesOf returns the names of a container's capabilities. ALL counts first, then what is added, then what is
// dropped, as in container runtimes.
func capabilitiesOf(privileged bool, c *v1.Capabilities) (map[string]bool, error) {
	all := map[string]bool{}
	for _, n := range capabilities {
		all[n] = true
	}
	if privileged {
		return all, nil
	}
	have := map[string]bool{}
	for _, n := range usualCapabilities {
		have[n] = true
	}
	if c == nil {
		return have, nil
	}
	name := func(c v1.Capability) string { return strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_") }
	for _, n := range append(slices.Clone(c.Add), c.Drop...) {
		if n := name(n); n != "ALL" && !all[n] {
			return nil, fmt.Errorf("capability %s is not known to the lab", n)
		}
	}
	if slices.ContainsFunc(c.Add, func(n v1.Capability) bool { return name(n) == "ALL" }) {
		have = maps.Clone(all)
	}
	if slices.ContainsFunc(c.Drop, func(n v1.Capability) bool { return name(n) == "ALL" }) {
		clear(have)
	}
	for _, n := range c.Add {
		if name(n) != "ALL" {
			have[name(n)] = true
		}
	}
	for _, n := range c.Drop {
		delete(have, name(n))
	}
	return have, nil
}

// limit takes from the calling thread, which must be locked, what the container may not, for programs that it starts. A
// program that root starts gets what is in the bounding set, so nothing else need change.
func (s security) limit() error {
	for n := range uintptr(64) {
		have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
		if err != nil {
			break // the kernel knows no more
		}
		if have == 1 && !slices.Contains(s.Capabilities, n) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, n, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", n, err)
			}
		}
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("forbid new privileges: %w", err)
		}
	}
	return nil
}

// ignored returns the fields of a pod that the lab does not know and that would change what the pod may or sees.
func ignored(pod *v1.Pod) []string {
	fields := map[string]bool{
		"hostIPC":               pod.Spec.HostIPC,
		"shareProcessNamespace": is(pod.Spec.ShareProcessNamespace),
		"hostAliases":           len(pod.Spec.HostAliases) > 0,
	}
	if s := pod.Spec.SecurityContext; s != nil {
		fields["securityContext.sysctls"] = len(s.Sysctls) > 0
		fields["securityContext.seccompProfile"] = s.SeccompProfile != nil
		fields["securityContext.appArmorProfile"] = s.AppArmorProfile != nil
		fields["securityContext.seLinuxOptions"] = s.SELinuxOptions != nil
	}
	for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
		at := "containers[" + c.Name + "]."
		fields[at+"resources.limits"] = len(c.Resources.Limits) > 0
		fields[at+"volumeDevices"] = len(c.VolumeDevices) > 0
		if s := c.SecurityContext; s != nil {
			fields[at+"securityContext.seccompProfile"] = s.SeccompProfile != nil
			fields[at+"securityContext.appArmorProfile"] = s.AppArmorProfile != nil
			fields[at+"securityContext.seLinuxOptions"] = s.SELinuxOptions != nil
			fields[at+"securityContext.procMount"] = s.ProcMount != nil
		}
	}
	maps.DeleteFunc(fields, func(_ string, used bool) bool { return !used })
	return slices.Sorted(maps.Keys(fields))
}
