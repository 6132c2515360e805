package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kube-proxy/config/v1alpha1"
)

const kind = "KubeProxyConfiguration"

// header is how every configuration begins, for those who have forgotten it.
const header = "apiVersion: " + v1alpha1.GroupName + "/v1alpha1 and kind: " + kind

// decode reads YAML or JSON without filling in defaults. As upstream, fields that are unknown or given twice are left
// aside with a warning each; everything else that is wrong is an error.
func decode(data []byte) (*v1alpha1.KubeProxyConfiguration, []string, error) {
	k, err := decodeWith(data, serializer.EnableStrict)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		if k, err = decodeWith(data, serializer.DisableStrict); err == nil {
			return k, strictWarnings(strict.Errors()), nil
		}
	}
	if err == nil || errors.Is(err, errKind) {
		return k, nil, err
	}
	if field := blame(data); field != "" {
		return nil, nil, fmt.Errorf("%s: %w", field, plain(err))
	}
	return nil, nil, plain(err)
}

// errKind says that a document is not a KubeProxyConfiguration.
var errKind = errors.New("it does not begin with " + header)

func decodeWith(data []byte, strictness serializer.CodecFactoryOptionsMutator) (*v1alpha1.KubeProxyConfiguration, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme, strictness)
	object, _, err := codecs.UniversalDeserializer().Decode(data, nil, nil)
	if runtime.IsMissingKind(err) || runtime.IsMissingVersion(err) || runtime.IsNotRegisteredError(err) {
		return nil, errKind
	}
	k, ok := object.(*v1alpha1.KubeProxyConfiguration)
	if !ok && err == nil {
		return nil, errKind
	}
	return k, err
}

// plain drops the words of the decoder that tell a user nothing.
func plain(err error) error {
	text := err.Error()
	if strings.Contains(text, "couldn't get version/kind") {
		return errors.New("it is neither a YAML nor a JSON object")
	}
	if i := strings.Index(text, "json: cannot unmarshal "); i >= 0 {
		value, rest, _ := strings.Cut(text[i+len("json: cannot unmarshal "):], " into ")
		_, want, _ := strings.Cut(rest, " of type ")
		if want == "" {
			_, want, _ = strings.Cut(rest, "Go value of type ")
		}
		return fmt.Errorf("got a %s where a value of type %s belongs", value, want)
	}
	return errors.New(strings.TrimPrefix(text, "error converting YAML to JSON: "))
}

// strictWarnings makes one line of each problem.
func strictWarnings(errs []error) (out []string) {
	for _, err := range errs {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasSuffix(line, "unmarshal errors:") {
				out = append(out, line)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out) // JSON reports a field twice that is given three times
}

// blame finds the field that the decoder stumbles over, because the errors of some types do not name it: it decodes
// each field alone. It returns "" where no single field is at fault.
func blame(data []byte) string {
	var all map[string]any
	if yaml.Unmarshal(data, &all) != nil {
		return ""
	}
	return blameIn(all, all, func(m map[string]any) map[string]any { return m })
}

// blameIn looks through the fields of one object of the document; wrap puts such an object where it belongs.
func blameIn(document, fields map[string]any, wrap func(map[string]any) map[string]any) string {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		alone := func(v any) map[string]any { return wrap(map[string]any{name: v}) }
		if decodable(document, alone(value)) {
			continue
		}
		if inner, ok := value.(map[string]any); ok {
			if deeper := blameIn(document, inner, func(m map[string]any) map[string]any { return alone(m) }); deeper != "" {
				return name + "." + deeper
			}
		}
		return name
	}
	return ""
}

// decodable says whether the fields decode, as a document of the given one's kind.
func decodable(document, fields map[string]any) bool {
	one := maps.Clone(fields)
	one["apiVersion"], one["kind"] = document["apiVersion"], document["kind"]
	data, err := json.Marshal(one)
	if err != nil {
		return false
	}
	_, err = decodeWith(data, serializer.DisableStrict)
	return err == nil
}
