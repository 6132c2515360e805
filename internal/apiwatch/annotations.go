package apiwatch

import (
	"fmt"
	"strconv"
	"strings"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/service"
)

// The annotations of Services that Varco reads.
const (
	// AnnotationBalance says how a new connection's backend is chosen: random (if there is no such annotation), maglev or
	// hash-source-ip.
	AnnotationBalance = "varco.dev/balance"
	// AnnotationWeights gives endpoints a share of the new connections, by address, node or zone:
	// "10.0.0.7=5,node/worker-1=2,zone/eu-1=3". The first that matches counts; what none matches has weight 1.
	AnnotationWeights = "varco.dev/weights"
)

const (
	// maxWeight keeps the number of slots in the kernel small: each weight is as many slots.
	maxWeight = 100
	// maxWeights bounds the entries of a list, because each endpoint is compared with them.
	maxWeights = 1000
)

func (c *converter) balance(word string) service.Balance {
	switch word = strings.TrimSpace(word); word {
	case "", service.Random.String():
		return service.Random
	case service.Maglev.String():
		return service.Maglev
	case service.HashSourceIP.String():
		return service.HashSourceIP
	}
	c.Problem("annotation %s: %q is not random, maglev or hash-source-ip", AnnotationBalance, word)
	return service.Random
}

func (c *converter) weights(list string) (out []service.Weight) {
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if len(out) == maxWeights {
			c.Problem("annotation %s: only the first %d weights count", AnnotationWeights, maxWeights)
			break
		}
		w, err := parseWeight(entry)
		if err != nil {
			c.Problem("annotation %s: %w", AnnotationWeights, err)
			continue
		}
		out = append(out, w)
	}
	return out
}

func parseWeight(entry string) (service.Weight, error) {
	of, number, _ := strings.Cut(entry, "=")
	of, number = strings.TrimSpace(of), strings.TrimSpace(number)
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n > maxWeight {
		return service.Weight{}, fmt.Errorf("%q does not end in = and a number from 0 to %d", entry, maxWeight)
	}
	w := service.Weight{Weight: uint16(n)}
	if node, ok := strings.CutPrefix(of, "node/"); ok && node != "" {
		w.Node = checked.Shared(node)
		return w, nil
	}
	if zone, ok := strings.CutPrefix(of, "zone/"); ok && zone != "" {
		w.Zone = checked.Shared(zone)
		return w, nil
	}
	if w.Addr, err = checked.ParseAddr(of); err != nil {
		return service.Weight{}, fmt.Errorf("%q is not the weight of an address, node/NAME or zone/NAME", entry)
	}
	return w, nil
}
