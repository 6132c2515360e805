package observe_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"varco.dev/internal/observe"
)

func TestVerbosity(t *testing.T) {
	for _, c := range []struct {
		verbosity int
		want      string // messages, in their order
	}{
		{0, "info klog0"},
		{3, "info klog0 klog3"},
		{4, "debug info klog0 klog3 klog4"},
	} {
		var out bytes.Buffer
		log, set := observe.NewLog(&out, "text", 4-c.verbosity) // and then another
		set(c.verbosity)
		log.Debug("debug")
		log.Info("info")
		klog.InfoS("klog0")
		klog.V(3).InfoS("klog3")
		klog.V(4).InfoS("klog4")
		var got []string
		for line := range strings.Lines(out.String()) {
			_, rest, _ := strings.Cut(line, "msg=")
			got = append(got, strings.Fields(rest)[0])
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("at %d got %v, want %s", c.verbosity, got, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	log, _ := observe.NewLog(&out, observe.FormatJSON, 4)
	log.Debug("one", "node", "a")
	log.Warn("two")
	decoder := json.NewDecoder(&out)
	var one, two map[string]any
	if err := decoder.Decode(&one); err != nil {
		t.Fatal(err)
	}
	if err := decoder.Decode(&two); err != nil {
		t.Fatal(err)
	}
	const year2020 = 1577836800000 // milliseconds
	if ts, _ := one["ts"].(float64); ts < year2020 || one["v"] != 4.0 || one["msg"] != "one" || one["node"] != "a" {
		t.Errorf("got %v", one)
	}
	if _, ok := two["v"]; ok || two["level"] != "WARN" {
		t.Errorf("got %v", two)
	}
}
