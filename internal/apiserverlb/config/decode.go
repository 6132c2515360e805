package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"varco.dev/internal/filewatch"
)

// maxSize is the size of the largest file that is read, in bytes. A ConfigMap holds no more than this.
const maxSize = 1 << 20

// Read reads a file and checks it, with the files that it names. An error names the file and all that is wrong.
func Read(path string) (Config, error) {
	data, err := filewatch.Read(path, maxSize)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	c, at, err := decode(data)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration %s: %w", path, err)
	}
	found := &checks{}
	found.all(c)
	found.files(c)
	if err := joined(found.withLines(at)); err != nil {
		return Config{}, fmt.Errorf("check the configuration %s: %w", path, err)
	}
	return c, nil
}

// Decode reads YAML or JSON, strictly: fields that are unknown, given twice or of another type are errors, all named at
// once by their path and line. Fields that are absent or null have their defaults. The values are not checked: Validate
// does.
func Decode(data []byte) (Config, error) {
	c, _, err := decode(data)
	return c, err
}

// decode returns the lines of the fields too.
func decode(data []byte) (Config, lines, error) {
	root, err := document(data)
	if err != nil {
		return Config{}, nil, err
	}
	w := &walk{lines: lines{}}
	tree := w.document(root)
	if err := joined(w.problems); err != nil {
		return Config{}, nil, err
	}
	c := Default()
	if tree["listeners"] != nil {
		c.Listeners = nil // package json would leave old values in the elements
	}
	// The walk has left nothing that could be refused here.
	text, err := json.Marshal(tree)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return Config{}, nil, fmt.Errorf("decode the configuration: %w", err)
	}
	c.Complete()
	return c, w.lines, nil
}

// document reads the only document of a file.
func document(data []byte) (*yaml.Node, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("it has more than %d bytes", maxSize)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := d.Decode(&first); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it is not YAML: %w", err)
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second document begins, and only one is read", second.Line)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("it is not YAML: %w", err)
	}
	if len(first.Content) != 1 || first.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is not a YAML or JSON object that begins with apiVersion: " + APIVersion + " and kind: " + Kind)
	}
	return first.Content[0], nil
}
