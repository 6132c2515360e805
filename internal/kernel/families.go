package kernel

import (
	"os"
	"strings"

	"varco.dev/internal/service"
)

// Families returns the IP families that this network namespace can use: IPv4, and IPv6 unless it is missing from the
// kernel or turned off for all interfaces.
func Families() []service.Family {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err != nil || strings.TrimSpace(string(off)) == "1" {
		return []service.Family{service.IPv4}
	}
	return []service.Family{service.IPv4, service.IPv6}
}
