package config

import (
	"bytes"
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// Effective is the whole KubeProxyConfiguration in YAML, as upstream writes it with --write-config-to: defaults are
// filled in, and the sections of other modes have zero where a setting belongs to the mode. Config must come from
// [Options.Load].
func (c Config) Effective() []byte {
	var out bytes.Buffer
	yaml := jsonserializer.NewSerializerWithOptions(nil, nil, nil, jsonserializer.SerializerOptions{Yaml: true})
	if err := yaml.Encode(c.object(), &out); err != nil {
		panic(err) // numbers, strings and lists: there is nothing that cannot be encoded
	}
	return out.Bytes()
}

// EffectiveJSON is the same in JSON, as upstream serves it at /configz below the key kubeproxy.config.k8s.io.
func (c Config) EffectiveJSON() []byte {
	out, err := json.Marshal(c.object())
	if err != nil {
		panic(err) // as above
	}
	return out
}

func (c Config) object() runtime.Object {
	k := c.effective.DeepCopy()
	k.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind(kind))
	return k
}
