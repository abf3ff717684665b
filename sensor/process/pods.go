package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	keptDeleted = 60 * time.Second // a pod's last events may come after its deletion
	sweepEvery  = 10 * time.Second

	// kubelet gives a static pod another uid than the API server does; the cgroup carries this hash instead.
	configHash = "kubernetes.io/config.hash"
)

// Pod is what the sensor keeps of a pod.
type Pod struct {
	UID            string
	Namespace      string
	Name           string
	Node           string
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string // those that PodOptions.Annotations lets through
	Owner          Owner             // its controller; zero without one
	Containers     []PodContainer    // init and ephemeral ones too
	IPs            []string
	HostNetwork    bool
	Declared       map[string]Hints // by container's name: what its specification says, for those that say something
	ConfigHash     string           // of a static pod
	Deleted        time.Time        // zero: it is there
	Version        string           // resourceVersion, to tell a change
}

// Owner names the controller of a pod.
type Owner struct {
	Kind string
	Name string
	UID  string
}

// PodContainer is one container of a pod.
type PodContainer struct {
	Name    string
	ID      string // without the runtime's prefix; "" before it was started
	Image   string // as the pod asks for it
	ImageID string // as the runtime resolved it
}

// PodOptions says where the pods are read from.
type PodOptions struct {
	Kubeconfig  string   // path; "": the service account of the pod that this runs in
	Node        string   // only its pods are read
	Annotations []string // prefixes of the annotations to keep, "tourniquet.dev/" say
	// OnChange is called for each pod that was added, changed or deleted, one at a time; it must not block for long.
	OnChange func(Pod)
	// OnError is called when the API server cannot be read; it is asked again by itself.
	OnError func(error)
}

// Pods knows the pods of one node from the API server. Safe for concurrent use.
type Pods struct {
	options  PodOptions
	informer cache.SharedIndexInformer
	synced   atomic.Bool

	mu          sync.Mutex
	byUID       map[string]*Pod
	byHash      map[string]*Pod
	byContainer map[string]*Pod
	changed     chan struct{} // closed and replaced at each change
}

// NewPods makes the informer; Run reads.
func NewPods(o PodOptions) (*Pods, error) {
	if o.Node == "" {
		return nil, errors.New("read pods: no node named")
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configure API client: %w", err)
	}
	client, err := podClient(config)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	lw := cache.NewListWatchFromClient(client, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", o.Node))
	p := &Pods{
		options: o, byUID: map[string]*Pod{}, byHash: map[string]*Pod{}, byContainer: map[string]*Pod{}, changed: make(chan struct{}),
		informer: cache.NewSharedIndexInformerWithOptions(lw, &corev1.Pod{}, cache.SharedIndexInformerOptions{}),
	}
	return p, p.wire()
}

// podClient knows the core group only: the whole client set costs megabytes that this process needs not.
func podClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.UserAgent = "tourniquet-sensor"
	config.QPS, config.Burst = 20, 40
	return rest.RESTClientFor(config)
}

func (p *Pods) wire() error {
	err := p.informer.SetTransform(strip)
	if err != nil {
		return fmt.Errorf("set transform: %w", err)
	}
	err = p.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if p.options.OnError != nil {
			p.options.OnError(fmt.Errorf("read pods of node %s: %w", p.options.Node, err))
		}
	})
	if err != nil {
		return fmt.Errorf("set error handler: %w", err)
	}
	_, err = p.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p.put(o, time.Time{}) },
		UpdateFunc: p.update,
		DeleteFunc: func(o any) {
			if last, missed := o.(cache.DeletedFinalStateUnknown); missed {
				o = last.Obj
			}
			p.put(o, time.Now())
		},
	})
	if err != nil {
		return fmt.Errorf("set event handler: %w", err)
	}
	return nil
}

// strip drops what is large or secret before the informer keeps it: managed fields, volumes, commands, and of environments
// all but a few names that say which identity is used.
func strip(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	slim := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name, ResourceVersion: pod.ResourceVersion,
		Labels: pod.Labels, Annotations: pod.Annotations, OwnerReferences: pod.OwnerReferences, DeletionTimestamp: pod.DeletionTimestamp,
	}}
	slim.Spec.NodeName, slim.Spec.ServiceAccountName, slim.Spec.HostNetwork = pod.Spec.NodeName, pod.Spec.ServiceAccountName, pod.Spec.HostNetwork
	slim.Spec.InitContainers, slim.Spec.Containers = slimContainers(pod.Spec.InitContainers), slimContainers(pod.Spec.Containers)
	slim.Status.PodIPs = pod.Status.PodIPs
	for _, s := range statuses(pod) {
		slim.Status.ContainerStatuses = append(slim.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: s.Name, ContainerID: s.ContainerID, Image: s.Image, ImageID: s.ImageID,
		})
	}
	return slim, nil
}

func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for _, some := range [][]corev1.ContainerStatus{
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		all = append(all, some...)
	}
	return all
}

// podFrom makes our own of a stripped pod.
func (p *Pods) podFrom(pod *corev1.Pod, deleted time.Time) *Pod {
	mine := &Pod{
		UID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, Node: pod.Spec.NodeName,
		ServiceAccount: pod.Spec.ServiceAccountName, HostNetwork: pod.Spec.HostNetwork, Version: pod.ResourceVersion,
		Labels: pod.Labels, ConfigHash: pod.Annotations[configHash], Deleted: deleted,
		Annotations: maps.Clone(pod.Annotations), Declared: declared(pod),
	}
	maps.DeleteFunc(mine.Annotations, func(name, _ string) bool {
		for _, prefix := range p.options.Annotations {
			if strings.HasPrefix(name, prefix) {
				return false
			}
		}
		return true
	})
	if c := metav1.GetControllerOf(pod); c != nil {
		mine.Owner = Owner{Kind: c.Kind, Name: c.Name, UID: string(c.UID)}
	}
	for _, ip := range pod.Status.PodIPs {
		mine.IPs = append(mine.IPs, ip.IP)
	}
	for _, s := range pod.Status.ContainerStatuses {
		_, id, _ := strings.Cut(s.ContainerID, "://")
		mine.Containers = append(mine.Containers, PodContainer{Name: s.Name, ID: id, Image: s.Image, ImageID: s.ImageID})
	}
	return mine
}

// update tells a changed pod from another one of the same name, whose predecessor's deletion was missed.
func (p *Pods) update(old, o any) {
	before, ok := old.(*corev1.Pod)
	after, too := o.(*corev1.Pod)
	if ok && too && before.UID != after.UID {
		p.put(old, time.Now())
	}
	p.put(o, time.Time{})
}

func (p *Pods) put(o any, deleted time.Time) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return // the informer is for pods only
	}
	mine := p.podFrom(pod, deleted)
	p.mu.Lock()
	if old := p.byUID[mine.UID]; old != nil {
		p.unlink(old)
	}
	p.byUID[mine.UID] = mine
	if mine.ConfigHash != "" {
		p.byHash[mine.ConfigHash] = mine
	}
	for _, c := range mine.Containers {
		if c.ID != "" {
			p.byContainer[c.ID] = mine
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if p.options.OnChange != nil {
		p.options.OnChange(*mine)
	}
}

// unlink takes a pod out of the indexes, but for entries that another pod has taken over.
func (p *Pods) unlink(pod *Pod) {
	if p.byUID[pod.UID] == pod {
		delete(p.byUID, pod.UID)
	}
	if p.byHash[pod.ConfigHash] == pod {
		delete(p.byHash, pod.ConfigHash)
	}
	for _, c := range pod.Containers {
		if p.byContainer[c.ID] == pod {
			delete(p.byContainer, c.ID)
		}
	}
}

// sweep forgets the pods that were deleted long enough ago.
func (p *Pods) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pod := range p.byUID {
		if !pod.Deleted.IsZero() && now.Sub(pod.Deleted) >= keptDeleted {
			p.unlink(pod)
		}
	}
}

// Run reads until ctx is done.
func (p *Pods) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { p.informer.RunWithContext(ctx) })
	running.Go(func() { p.synced.Store(cache.WaitForCacheSync(ctx.Done(), p.informer.HasSynced)) })
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-sweep.C:
			p.sweep(now)
		}
	}
}

// Synced reports whether the pods that were there at the start are known.
func (p *Pods) Synced() bool { return p.synced.Load() }

// Lookup returns the pod that a cgroup's path names, by its uid or else by its container; false while it is not known.
func (p *Pods) Lookup(c Container) (Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pod := p.lookup(c)
	if pod == nil {
		return Pod{}, false
	}
	return *pod, true
}

func (p *Pods) lookup(c Container) *Pod {
	if pod := p.byUID[c.PodUID]; pod != nil {
		return pod
	}
	if pod := p.byHash[c.PodUID]; pod != nil && c.Static {
		return pod
	}
	return p.byContainer[c.ID]
}

// Await is Lookup, but waits until the pod is known or ctx is done: the kernel is ahead of the API server.
func (p *Pods) Await(ctx context.Context, c Container) (Pod, error) {
	for {
		p.mu.Lock()
		pod, changed := p.lookup(c), p.changed
		p.mu.Unlock()
		if pod != nil {
			return *pod, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Pod{}, fmt.Errorf("wait for pod %s: %w", c.PodUID, ctx.Err())
		}
	}
}

// Container returns the container with that id, of a pod.
func (p Pod) Container(id string) (PodContainer, bool) {
	for _, c := range p.Containers {
		if c.ID == id {
			return c, true
		}
	}
	return PodContainer{}, false
}
