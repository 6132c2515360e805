package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
)

// volumeRefresh is how often volumes made from API objects are compared with them.
const volumeRefresh = 3 * time.Second

// token is a service account token with the time to renew it.
type token struct {
	value string
	renew time.Time
}

// volumes makes and refreshes the volumes of one pod. Its methods are called from one goroutine at a time.
type volumes struct {
	dir    string           // folder of the pod's volumes
	host   string           // folder for host paths that the machine does not have
	tokens map[string]token // VOLUME/PATH -> token
}

// path returns where a volume is on the node. Only hostPath volumes are outside the pod's folder. A host path to be
// created that the machine does not have is one of the node: the lab makes nothing on the machine.
func (vs *volumes) path(v *v1.Volume) string {
	if v.HostPath == nil {
		return filepath.Join(vs.dir, v.Name)
	}
	if _, err := os.Stat(v.HostPath.Path); err != nil && isCreated(v.HostPath) {
		return filepath.Join(vs.host, filepath.Join("/", v.HostPath.Path))
	}
	return v.HostPath.Path
}

func isCreated(h *v1.HostPathVolumeSource) bool {
	return h.Type != nil && (*h.Type == v1.HostPathDirectoryOrCreate || *h.Type == v1.HostPathFileOrCreate)
}

// sync makes every volume of the pod be there and up to date. The pod of refs has the addresses that the
// agent gave it.
func (vs *volumes) sync(refs references) error {
	for i := range refs.pod.Spec.Volumes {
		v := &refs.pod.Spec.Volumes[i]
		if err := vs.syncOne(v, refs); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (vs *volumes) syncOne(v *v1.Volume, refs references) error {
	if v.HostPath != nil {
		return makeHostPath(v.HostPath, vs.path(v))
	}
	dir := vs.path(v)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if v.EmptyDir != nil {
		return os.Chmod(dir, 0o777)
	}
	sources, mode, err := sourcesOf(v)
	if err != nil {
		return err
	}
	p := payload{}
	for _, s := range sources {
		if err := vs.collect(p, source{s, v.Name, mode}, refs); err != nil {
			return err
		}
	}
	return p.write(dir)
}

// sourcesOf sees every volume made from API objects as a projected one.
func sourcesOf(v *v1.Volume) ([]v1.VolumeProjection, *int32, error) {
	switch {
	case v.Projected != nil:
		return v.Projected.Sources, v.Projected.DefaultMode, nil
	case v.ConfigMap != nil:
		return []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
		}}}, v.ConfigMap.DefaultMode, nil
	case v.Secret != nil:
		return []v1.VolumeProjection{{Secret: &v1.SecretProjection{
			LocalObjectReference: v1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional,
		}}}, v.Secret.DefaultMode, nil
	case v.DownwardAPI != nil:
		return []v1.VolumeProjection{{DownwardAPI: &v1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}, v.DownwardAPI.DefaultMode, nil
	}
	return nil, nil, errors.New("the lab knows emptyDir, hostPath, configMap, secret, downwardAPI and projected volumes only")
}

// source is one source of a volume.
type source struct {
	v1.VolumeProjection
	volume      string
	defaultMode *int32 // of the volume's files
}

func (s source) mode(m *int32) fs.FileMode {
	if m == nil {
		m = s.defaultMode
	}
	if m == nil {
		return 0o644
	}
	return fs.FileMode(*m) & fs.ModePerm
}

// collect adds the files of a source to a payload.
func (vs *volumes) collect(p payload, s source, refs references) error {
	switch {
	case s.ConfigMap != nil:
		data, err := refs.ConfigMap(s.ConfigMap.Name, s.ConfigMap.Optional)
		if err != nil {
			return err
		}
		return addItems(p, s, object{data, s.ConfigMap.Items, s.ConfigMap.Optional})
	case s.Secret != nil:
		data, err := refs.Secret(s.Secret.Name, s.Secret.Optional)
		if err != nil {
			return err
		}
		return addItems(p, s, object{data, s.Secret.Items, s.Secret.Optional})
	case s.DownwardAPI != nil:
		return addFields(p, s, refs.pod)
	case s.ServiceAccountToken != nil:
		return vs.addToken(p, s, refs)
	}
	return errors.New("the lab knows configMap, secret, downwardAPI and serviceAccountToken sources only")
}

// object is the data of an object and what a source wants of it.
type object struct {
	data     map[string][]byte
	items    []v1.KeyToPath
	optional *bool
}

func addItems(p payload, s source, o object) error {
	if len(o.items) == 0 {
		for k, v := range o.data {
			p[k] = file{v, s.mode(nil)}
		}
		return nil
	}
	for _, it := range o.items {
		v, ok := o.data[it.Key]
		if ok {
			p[it.Path] = file{v, s.mode(it.Mode)}
		} else if o.optional == nil || !*o.optional {
			return fmt.Errorf("key %q not found", it.Key)
		}
	}
	return nil
}

func addFields(p payload, s source, pod *v1.Pod) error {
	for _, it := range s.DownwardAPI.Items {
		if it.FieldRef == nil {
			return fmt.Errorf("file %s: the lab knows fieldRef only", it.Path)
		}
		value, err := fieldOf(pod, it.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		p[it.Path] = file{[]byte(value), s.mode(it.Mode)}
	}
	return nil
}

func (vs *volumes) addToken(p payload, s source, refs references) error {
	key := s.volume + "/" + s.ServiceAccountToken.Path
	t := vs.tokens[key]
	if time.Now().After(t.renew) {
		value, renew, err := refs.Token(s.ServiceAccountToken)
		if err != nil && t.value == "" {
			return err
		}
		if err == nil { // a token that could not be renewed is good for some time; the next refresh tries again
			t = token{value, renew}
			vs.tokens[key] = t
		}
	}
	p[s.ServiceAccountToken.Path] = file{[]byte(t.value), s.mode(nil)}
	return nil
}

// makeHostPath makes what a hostPath volume is to have at path.
func makeHostPath(h *v1.HostPathVolumeSource, path string) error {
	if !isCreated(h) {
		_, err := os.Stat(path)
		return err
	}
	if *h.Type == v1.HostPathDirectoryOrCreate {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// mountsOf returns the mounts of a container.
func (vs *volumes) mountsOf(pod *v1.Pod, c *v1.Container, expand func(string) string) ([]mount, error) {
	byName := map[string]*v1.Volume{}
	for i := range pod.Spec.Volumes {
		byName[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	var mounts []mount
	for _, m := range c.VolumeMounts {
		v, ok := byName[m.Name]
		if !ok {
			return nil, fmt.Errorf("mount %s: no such volume", m.Name)
		}
		src := vs.path(v)
		if sub := expand(m.SubPath + m.SubPathExpr); sub != "" {
			if !filepath.IsLocal(sub) {
				return nil, fmt.Errorf("mount %s: subPath %q leads out of the volume", m.Name, sub)
			}
			if err := makeSubPath(src, sub); err != nil {
				return nil, fmt.Errorf("mount %s: %w", m.Name, err)
			}
			src = filepath.Join(src, sub)
		}
		// What is made from API objects is the agent's to write: a container that could replace its links could lead
		// the agent, which is root, out of the volume.
		mounts = append(mounts, mount{Source: src, Target: m.MountPath, ReadOnly: m.ReadOnly || isMade(v)})
	}
	return mounts, nil
}

// isMade says whether the agent writes the volume's files, from API objects.
func isMade(v *v1.Volume) bool { return v.HostPath == nil && v.EmptyDir == nil }

// makeSubPath makes a folder of a volume unless something is there. It fails if a link leads out of the volume.
func makeSubPath(volume, sub string) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Stat(sub); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.MkdirAll(sub, 0o755)
}
