package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"tourniquet.dev/tourniquet/dev/cluster"
	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/dev/workload"
)

// Names of the demo's little shop.
const (
	namespace = "shop"
	account   = "cart" // service account, role and binding
	podName   = "cart-6d4b98f7c-x7k2p"
	awsUser   = "cart-ci"
	awsRole   = "data-export"
	roleARN   = "arn:aws:iam::" + stack.Account + ":role/" + awsRole
)

// shop is the workload that will be attacked, as the API server and AWS know it.
type shop struct {
	stack       *stack.Stack
	api         *kubernetes.Clientset
	keyID       string
	secret      string
	podUID      types.UID
	ownerUID    types.UID // of the replica set
	containerID string
}

// openShop makes everything that the workload is in Kubernetes and in AWS.
func openShop(ctx context.Context, s *stack.Stack) (*shop, error) {
	api, err := s.Kubernetes.Client()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 32)
	rand.Read(id) //nolint:errcheck // it never fails
	sh := &shop{stack: s, api: api, containerID: hex.EncodeToString(id)}
	for _, step := range []func(context.Context) error{sh.identities, sh.rights, sh.objects, sh.pod, sh.files} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("open the shop: %w", err)
		}
	}
	return sh, nil
}

// identities makes the IAM user with its key, and the role that it may assume.
func (s *shop) identities(ctx context.Context) error {
	var err error
	s.keyID, s.secret, err = s.stack.MakeUser(ctx, awsUser, `{"Version":"2012-10-17","Statement":[
  {"Effect":"Allow","Action":["s3:ListAllMyBuckets","s3:GetObject","s3:ListBucket"],"Resource":"*"},
  {"Effect":"Allow","Action":"sts:AssumeRole","Resource":"`+roleARN+`"}]}`)
	if err != nil {
		return err
	}
	api := s.stack.IAM()
	_, err = api.CreateRole(ctx, &iam.CreateRoleInput{RoleName: sdk.String(awsRole), AssumeRolePolicyDocument: sdk.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + stack.Account + `:user/` + awsUser + `"},"Action":"sts:AssumeRole"}]}`)})
	if err != nil {
		return fmt.Errorf("make role %s: %w", awsRole, err)
	}
	_, err = api.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: sdk.String(awsRole), PolicyName: sdk.String("export"), PolicyDocument: sdk.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`)})
	if err != nil {
		return fmt.Errorf("give role %s its rights: %w", awsRole, err)
	}
	return s.stack.Settle(ctx)
}

// rights makes the namespace, and the service account with what it may do.
func (s *shop) rights(ctx context.Context) error {
	if _, err := s.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := s.api.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: account}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "create", "patch"}}}}
	if _, err := s.api.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: account}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}}}
	_, err := s.api.RbacV1().RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// objects makes what the account can read, the service, and the deployment with its replica set.
func (s *shop) objects(ctx context.Context) error {
	for name, value := range map[string]string{"orders-db": "demo-password", "payment-provider": "demo-token"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": value}}
		if _, err := s.api.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	labels := map[string]string{"app": "cart"}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "cart"}, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := s.api.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	selector, template := &metav1.LabelSelector{MatchLabels: labels}, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: s.spec()}
	deployment, err := s.api.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "cart"},
		Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	owner := *metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))
	set, err := s.api.AppsV1().ReplicaSets(namespace).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "cart-6d4b98f7c", OwnerReferences: []metav1.OwnerReference{owner}},
		Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	s.ownerUID = set.UID
	return nil
}

func (s *shop) spec() corev1.PodSpec {
	return corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "cart", Image: "registry.example/shop/cart:2.14",
		Env: []corev1.EnvVar{{Name: "AWS_ACCESS_KEY_ID", Value: s.keyID}, {Name: "AWS_REGION", Value: stack.Region}}}}}
}

// pod makes the pod as its replica set would, and has it run as its kubelet would.
func (s *shop) pod(ctx context.Context) error {
	spec := s.spec()
	spec.NodeName = stack.Node
	yes := true
	pod, err := s.api.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName,
		Labels: map[string]string{"app": "cart", "pod-template-hash": "6d4b98f7c"}, Annotations: map[string]string{"shop.example/team": "checkout"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "cart-6d4b98f7c", UID: s.ownerUID, Controller: &yes}}},
		Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	s.podUID = pod.UID
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: workload.PodIP, PodIPs: []corev1.PodIP{{IP: workload.PodIP}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "cart", Ready: true, Image: spec.Containers[0].Image, ContainerID: "containerd://" + s.containerID,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}}
	_, err = s.api.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// files writes what the pod is given: the key in its home, and its own token.
func (s *shop) files(ctx context.Context) error {
	token, err := s.stack.Kubernetes.ServiceAccountToken(ctx, cluster.TokenRequest{Namespace: namespace, ServiceAccount: account, Pod: podName, PodUID: s.podUID})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.stack.Path("pod"), 0o700); err != nil {
		return err
	}
	for name, data := range map[string]string{"token": token, "ca.crt": string(s.stack.Kubernetes.CA()),
		"credentials": fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s.keyID, s.secret)} {
		if err := os.WriteFile(s.file(name), []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) file(name string) string { return filepath.Join(s.stack.Path("pod"), name) }

// start starts the pod's process, with the outside.
func (s *shop) start(ctx context.Context, m machine) (*workload.Workload, error) {
	if !m.whole() {
		m.cgroupFS = ""
	}
	return workload.Start(ctx, workload.Options{Program: s.stack.Program("workload"), Dir: s.stack.Path("pod"), Run: s.stack, Book: s.stack.Book(), CgroupFS: m.cgroupFS,
		PodUID: string(s.podUID), ContainerID: s.containerID, Namespace: namespace, KeyID: s.keyID,
		Credentials: s.file("credentials"), Token: s.file("token"), CA: s.file("ca.crt"),
		AWS: s.stack.AWSURL, Kubernetes: s.stack.Kubernetes.URL(), Role: roleARN, Tag: string(s.podUID)[:8]})
}
