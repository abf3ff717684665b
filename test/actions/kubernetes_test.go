package actions_test

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	deploy "tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// protectedPod is a world whose pod's namespace is protected.
func protectedPod(action plan.Action) func(t *testing.T) (conformance.World, trust.Protected) {
	return func(t *testing.T) (conformance.World, trust.Protected) {
		w := newTown(t)
		w.account(t, "shop")
		world := w.world(action, w.podOf(t, "shop-1", "shop", "ReplicaSet"))
		world.Step.Index = 0
		return world, trust.Protected{Namespaces: []string{"Town-*"}}
	}
}

func TestI11IsolatePodConforms(t *testing.T) {
	t.Parallel()
	for name, owner := range map[string]string{"of a replica set": "ReplicaSet", "of a stateful set": "StatefulSet", "bare": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformance.Run(t, conformance.Subject{
				Make:      func(t *testing.T) conformance.World { return isolateWorld(t, owner) },
				Protected: protectedPod(plan.KubernetesIsolatePod),
			})
		})
	}
}

func isolateWorld(t *testing.T, owner string) conformance.World {
	w := newTown(t)
	w.account(t, "shop")
	world := w.world(plan.KubernetesIsolatePod, w.podOf(t, "shop-1", "shop", owner))
	name := (plan.Intent{IncidentID: conformance.IncidentID, PlanDigest: conformance.PlanDigest, Step: world.Step}).ObjectName()
	world.Held = func(t *testing.T) bool {
		labels := w.pod(t, "shop-1").Labels
		policies := w.policies(t)
		kept := 1
		if owner == "StatefulSet" {
			kept = 3
		}
		return labels[kubernetes.LabelQuarantine] == conformance.IncidentID && len(labels) == kept && len(policies) == 1 && policies[0].Name == name
	}
	world.Lift = func(t *testing.T) {
		w.setLabels(t, "shop-1", map[string]string{"app": "shop", "pod-template-hash": "5d4f8"})
	}
	world.Drift = func(t *testing.T) { w.setLabels(t, "shop-1", map[string]string{"app": "other"}) }
	world.Replace = func(t *testing.T) { w.replacePod(t, "shop-1", "shop", owner) }
	return world
}

func TestI11NodeOrdersConform(t *testing.T) {
	t.Parallel()
	for _, action := range []plan.Action{plan.NodeCutNetwork, plan.NodeFreeze, plan.NodeKillPod} {
		t.Run(strings.TrimPrefix(string(action), "node/"), func(t *testing.T) {
			t.Parallel()
			nodeOrderConforms(t, action)
		})
	}
}

func nodeOrderConforms(t *testing.T, action plan.Action) {
	t.Helper()
	conformance.Run(t, conformance.Subject{
		Make: func(t *testing.T) conformance.World {
			w := newTown(t)
			w.account(t, "shop")
			world := w.world(action, w.podOf(t, "shop-1", "shop", "ReplicaSet"))
			world.Held = func(t *testing.T) bool {
				order, ok := w.order(t, "shop-1")
				return ok && !order.Lift && order.Action == action
			}
			// A lift stays on the pod, for the node to read: that is as good as no order.
			full := world.Snapshot
			world.Snapshot = func(t *testing.T) any {
				out := full(t).(map[string]any)
				for _, m := range out["pod shop-1"].([]any)[1].([]map[string]string) {
					for k := range m {
						if order, ok := w.order(t, "shop-1"); ok && order.Lift && strings.HasPrefix(k, kubernetes.AnnotationOrder) {
							delete(m, k)
						}
					}
				}
				return out
			}
			world.Replace = func(t *testing.T) { w.replacePod(t, "shop-1", "shop", "ReplicaSet") }
			return world
		},
		Protected: protectedPod(action),
	})
}

func TestI11BlockWritesConforms(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{
		Make: func(t *testing.T) conformance.World {
			w := newTown(t)
			w.account(t, "shop")
			target := w.podOf(t, "shop-1", "shop", "ReplicaSet")
			world := w.world(plan.KubernetesBlockWrites, target)
			world.Held = func(t *testing.T) bool { return strings.Contains(w.blocked(t).Data["pods"], target.UID) }
			world.Lift = func(t *testing.T) { w.unlist(t, target.UID) }
			return world
		},
		Protected: protectedPod(plan.KubernetesBlockWrites),
	})
}

func (w *town) unlist(t *testing.T, uid string) {
	t.Helper()
	for range 20 {
		list := w.blocked(t)
		list.Data["pods"] = strings.Trim(strings.ReplaceAll(","+list.Data["pods"]+",", ","+uid+",", ","), ",")
		if _, err := w.admin.CoreV1().ConfigMaps(deploy.Namespace).Update(t.Context(), list, metav1.UpdateOptions{}); err == nil {
			return
		}
	}
	t.Fatal("the list of blocked pods does not hold still")
}

func TestI11CutRBACConforms(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{
		Make: rbacWorld,
		Protected: func(t *testing.T) (conformance.World, trust.Protected) {
			w := newTown(t)
			sa := w.account(t, "shop")
			w.bindRole(t, "writes", "writer", subject(sa))
			vault := newTown(t) // the same account is bound in a protected namespace
			vault.bindRole(t, "reaches-in", "writer", subject(sa))
			world := w.world(plan.KubernetesCutRBAC, sa)
			world.Step.Index = 0
			return world, trust.Protected{Namespaces: []string{vault.namespace}}
		},
	})
}

func rbacWorld(t *testing.T) conformance.World {
	w := newTown(t)
	sa, other := w.account(t, "shop"), w.account(t, "other")
	person := rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}
	w.bindRole(t, "writes", "writer", subject(other), subject(sa), person)
	w.bindRole(t, "only-ours", "writer", subject(sa))
	w.bindRole(t, "not-ours", "writer", subject(other))
	w.bindWide(t, w.namespace+"-wide", rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "system:serviceaccount:" + sa.Namespace + ":" + sa.Name}, person)
	world := w.world(plan.KubernetesCutRBAC, sa)
	world.Finding = plan.Verified
	world.Held = func(t *testing.T) bool {
		return !w.named(t, "writes", sa) && !w.named(t, "only-ours", sa) && !w.namedWide(t, sa)
	}
	world.Lift = func(t *testing.T) {
		b := must(w.admin.RbacV1().RoleBindings(w.namespace).Get(t.Context(), "only-ours", metav1.GetOptions{}))(t)
		b.Subjects = []rbacv1.Subject{subject(sa)} // and leaves our note where it is
		must(w.admin.RbacV1().RoleBindings(w.namespace).Update(t.Context(), b, metav1.UpdateOptions{}))(t)
	}
	world.Drift = func(t *testing.T) {
		for _, name := range []string{"writes", "only-ours"} {
			b := must(w.admin.RbacV1().RoleBindings(w.namespace).Get(t.Context(), name, metav1.GetOptions{}))(t)
			b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"})
			must(w.admin.RbacV1().RoleBindings(w.namespace).Update(t.Context(), b, metav1.UpdateOptions{}))(t)
		}
		patch := []byte(`[{"op":"add","path":"/subjects/-","value":{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"joe"}}]`)
		must(w.admin.RbacV1().ClusterRoleBindings().Patch(t.Context(), w.namespace+"-wide", types.JSONPatchType, patch, metav1.PatchOptions{}))(t)
	}
	world.Replace = func(t *testing.T) {
		if err := w.admin.CoreV1().ServiceAccounts(w.namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.account(t, "shop")
		for _, name := range []string{"writes", "only-ours"} {
			b := must(w.admin.RbacV1().RoleBindings(w.namespace).Get(t.Context(), name, metav1.GetOptions{}))(t)
			if err := w.admin.RbacV1().RoleBindings(w.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			w.bindRole(t, name, "writer", b.Subjects...)
		}
		if err := w.admin.RbacV1().ClusterRoleBindings().Delete(t.Context(), w.namespace+"-wide", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.bindWide(t, w.namespace+"-wide", person)
	}
	return world
}

func (w *town) named(t *testing.T, binding string, sa plan.Target) bool {
	t.Helper()
	b := must(w.admin.RbacV1().RoleBindings(w.namespace).Get(t.Context(), binding, metav1.GetOptions{}))(t)
	for _, s := range b.Subjects {
		if s == subject(sa) {
			return true
		}
	}
	return false
}

func (w *town) namedWide(t *testing.T, sa plan.Target) bool {
	t.Helper()
	b := must(w.admin.RbacV1().ClusterRoleBindings().Get(t.Context(), w.namespace+"-wide", metav1.GetOptions{}))(t)
	for _, s := range b.Subjects {
		if strings.HasSuffix(s.Name, sa.Namespace+":"+sa.Name) {
			return true
		}
	}
	return false
}
