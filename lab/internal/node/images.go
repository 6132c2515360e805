package node

import (
	"fmt"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// imageOf finds the command that stands for an image. Names are compared without docker.io/ and without the tag or
// digest, unless one with it was given.
func imageOf(images map[string][]string, name string) ([]string, error) {
	name = strings.TrimPrefix(name, "docker.io/")
	if cmd, ok := images[name]; ok {
		return cmd, nil
	}
	bare, _, _ := strings.Cut(name, "@")
	if i := strings.LastIndexByte(bare, ':'); i > strings.LastIndexByte(bare, '/') {
		bare = bare[:i]
	}
	if cmd, ok := images[bare]; ok {
		return cmd, nil
	}
	return nil, fmt.Errorf("image %q is not known to the lab: start it with --image %s=/PATH/TO/PROGRAM", name, bare)
}

// commandOf joins the image's command and the container's by the rules of Kubernetes: the container's command takes the
// place of the whole image's command, its args are added to whichever holds. A first word that is the name of the
// image's program means that program.
func commandOf(image []string, c *v1.Container, expand func(string) string) []string {
	argv := append([]string(nil), image...)
	if len(c.Command) > 0 {
		argv = nil
		for _, a := range c.Command {
			argv = append(argv, expand(a))
		}
		argv[0] = programOf(image, argv[0])
	}
	for _, a := range c.Args {
		argv = append(argv, expand(a))
	}
	return argv
}

// programOf returns the path of the program that a first word means: the image's if it is its name.
func programOf(image []string, word string) string {
	if base := filepath.Base(image[0]); word == base || word == "/"+base {
		return image[0]
	}
	return word
}
