package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/version"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
)

// Times of a node's signs of life, the kubelet's defaults.
const (
	leaseSeconds    = 40
	leaseRenewal    = 10 * time.Second
	nodeCheck       = 10 * time.Second // how often the Node is compared with the API
	statusHeartbeat = 5 * time.Minute  // how often an unchanged status is sent
)

// maxPods is the node's capacity for pods, the kubelet's default.
const maxPods = 110

// kubeletPort is where the agent serves HTTPS.
const kubeletPort = 10250

// runNode keeps the Node object and its Lease until ctx ends.
func (a *Agent) runNode(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", a.cfg.Name).String()
	}))
	_, err := f.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.sawNode(ctx, obj.(*v1.Node)) },
		UpdateFunc: func(_, obj any) { a.sawNode(ctx, obj.(*v1.Node)) },
		DeleteFunc: func(any) { a.checkNode() },
	})
	if err != nil {
		return fmt.Errorf("watch own node: %w", err)
	}
	f.Start(ctx.Done())
	defer f.Shutdown()
	leases := lease.NewController(clock.RealClock{}, a.cfg.Client, a.cfg.Name, leaseSeconds, nil, leaseRenewal, a.cfg.Name,
		v1.NamespaceNodeLease, a.ownLease(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() { leases.Run(ctx) })
	a.keepNode(ctx)
	renewing.Wait()
	return nil
}

// ownLease makes the Node the owner of its Lease, so that the garbage collector removes one with the other.
func (a *Agent) ownLease(ctx context.Context) lease.ProcessLeaseFunc {
	return func(l *coordinationv1.Lease) error {
		n, err := a.cfg.Client.CoreV1().Nodes().Get(ctx, a.cfg.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
		return nil
	}
}

func (a *Agent) checkNode() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// sawNode takes the pod networks of the node as soon as they are allocated. They never change in a Node's life, but a Node
// that is made again may have others: its next pods get those.
func (a *Agent) sawNode(ctx context.Context, n *v1.Node) {
	if n.Name != a.cfg.Name || len(n.Spec.PodCIDRs) == 0 {
		return
	}
	a.mu.Lock()
	first, same := a.addresses == nil, slices.Equal(a.podCIDRs, n.Spec.PodCIDRs)
	a.mu.Unlock()
	if same {
		return
	}
	adr, err := newAddresses(n.Spec.PodCIDRs)
	if err != nil {
		a.cfg.Log.Error("node cannot run pods", "err", err)
		return
	}
	used, err := a.usedAddresses(ctx)
	if err != nil { // they are only better not given again soon
		a.cfg.Log.Warn("addresses of earlier pods not known", "err", err)
	}
	a.mu.Lock()
	maps.Copy(used, a.earlier) // the API may not show them any more
	adr.avoid(used)
	a.addresses, a.podCIDRs = adr, n.Spec.PodCIDRs
	a.mu.Unlock()
	if first {
		close(a.networked)
	}
	a.checkNode()
}

// usedAddresses returns the addresses of the node's pods in the API; the map is never nil.
func (a *Agent) usedAddresses(ctx context.Context) (map[netip.Addr]bool, error) {
	used := map[netip.Addr]bool{}
	pods, err := a.cfg.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", a.cfg.Name).String(),
	})
	if err != nil {
		return used, err
	}
	for i := range pods.Items {
		addAddresses(used, &pods.Items[i])
	}
	return used, nil
}

func addAddresses(to map[netip.Addr]bool, p *v1.Pod) {
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			to[addr] = true
		}
	}
}

// keepNode compares the Node with what it should be, at changes and now and then.
func (a *Agent) keepNode(ctx context.Context) {
	tick := time.NewTicker(nodeCheck)
	defer tick.Stop()
	var sent time.Time
	wait := firstRetry
	for ctx.Err() == nil {
		err := a.ensureNode(ctx, &sent)
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("node not registered, will be tried again", "err", err)
			sleep(ctx, wait)
			wait = min(2*wait, maxRetry)
			continue
		}
		wait = firstRetry
		select {
		case <-tick.C:
		case <-a.changed:
		case <-ctx.Done():
		}
	}
}

// ensureNode creates the Node or brings it up to date. sent is when its status was last sent.
func (a *Agent) ensureNode(ctx context.Context, sent *time.Time) error {
	nodes := a.cfg.Client.CoreV1().Nodes()
	have, err := nodes.Get(ctx, a.cfg.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		have, err = nodes.Create(ctx, a.nodeObject(), metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	want := have.DeepCopy()
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	maps.Copy(want.Labels, a.labels())
	if !maps.Equal(want.Labels, have.Labels) {
		patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": a.labels()}})
		if have, err = nodes.Patch(ctx, a.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("label node: %w", err)
		}
		want.ResourceVersion = have.ResourceVersion
	}
	want.Status = a.nodeStatus(have.Status, time.Now())
	if apiequality.Semantic.DeepEqual(withoutHeartbeats(have.Status), withoutHeartbeats(want.Status)) && time.Since(*sent) < statusHeartbeat {
		return nil
	}
	if err := a.sendNodeStatus(ctx, have, want); err != nil {
		return err
	}
	*sent = time.Now()
	return nil
}

func (a *Agent) sendNodeStatus(ctx context.Context, have, want *v1.Node) error {
	from, err := json.Marshal(v1.Node{Status: have.Status})
	if err != nil {
		return err
	}
	to, err := json.Marshal(v1.Node{Status: want.Status})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, v1.Node{})
	if err != nil {
		return fmt.Errorf("compare node status: %w", err)
	}
	_, err = a.cfg.Client.CoreV1().Nodes().
		Patch(ctx, a.cfg.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("send node status: %w", err)
	}
	return nil
}

func withoutHeartbeats(s v1.NodeStatus) v1.NodeStatus {
	s = *s.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

func (a *Agent) labels() map[string]string {
	labels := map[string]string{
		v1.LabelHostname: a.cfg.Name, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
	}
	if a.cfg.Zone != "" {
		labels[v1.LabelTopologyZone] = a.cfg.Zone
	}
	return labels
}

func (a *Agent) nodeObject() *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Name, Labels: a.labels()},
		Status:     a.nodeStatus(v1.NodeStatus{}, time.Now()),
	}
}

// nodeStatus returns the status of the node, with times of conditions that did not change taken from old.
func (a *Agent) nodeStatus(old v1.NodeStatus, now time.Time) v1.NodeStatus {
	s := *old.DeepCopy()
	s.Addresses = nil
	for _, ip := range a.cfg.NodeIPs {
		s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: a.cfg.Name})
	s.Capacity = v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(memory(), resource.BinarySI),
		v1.ResourcePods:   *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	s.Allocatable = s.Capacity.DeepCopy()
	s.NodeInfo = nodeInfo()
	s.DaemonEndpoints.KubeletEndpoint.Port = kubeletPort
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "the lab's node agent runs"}
	select {
	case <-a.networked:
	default:
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", "the node has no podCIDRs yet"
	}
	setNodeCondition(&s, ready, now)
	for _, t := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		setNodeCondition(&s, v1.NodeCondition{Type: t, Status: v1.ConditionFalse, Reason: "NotMeasured", Message: "the lab does not measure it"}, now)
	}
	return s
}

func setNodeCondition(s *v1.NodeStatus, c v1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime = metav1.NewTime(now.Truncate(time.Second))
	c.LastTransitionTime = c.LastHeartbeatTime
	for i, old := range s.Conditions {
		if old.Type == c.Type {
			if old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

func nodeInfo() v1.NodeSystemInfo {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	return v1.NodeSystemInfo{
		MachineID: read("/etc/machine-id"), SystemUUID: read("/etc/machine-id"), BootID: read("/proc/sys/kernel/random/boot_id"),
		KernelVersion: read("/proc/sys/kernel/osrelease"), OSImage: "network namespace", ContainerRuntimeVersion: "varco-lab://1",
		KubeletVersion: version.Get().GitVersion, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
}

// memory returns the machine's memory in bytes.
func memory() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return 1 << 30
	}
	return kib << 10
}
