package actions_test

import (
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

func TestI11QuarantinePrincipalConforms(t *testing.T) {
	t.Parallel()
	attached := func(a *account) bool { return slices.Contains(a.State().Entities["user/app"].Attached, quarantineARN) }
	conformance.Run(t, conformance.Subject{
		Make: func(t *testing.T) conformance.World {
			a := newAccount(t, aws.Leashed)
			w := a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, a.user(t, "app", allowAll)))
			w.Held = func(*testing.T) bool { return attached(a) }
			w.Lift = func(t *testing.T) {
				must(a.admin.DetachUserPolicy(t.Context(), &iam.DetachUserPolicyInput{UserName: sdk.String("app"), PolicyArn: sdk.String(quarantineARN)}))(t)
			}
			w.Replace = func(t *testing.T) { a.replaceUser(t, "app", w.Step.Target.Name) }
			return w
		},
		Protected: func(t *testing.T) (conformance.World, trust.Protected) {
			a := newAccount(t, aws.Leashed)
			return a.world(t, plan.AWSQuarantinePrincipal, keyTarget(a, a.user(t, "app", allowAll))),
				trust.Protected{Principals: []string{"arn:aws:iam::*:user/app"}}
		},
	})
}

func TestI11DeactivateKeysConforms(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Subject{
		Make: func(t *testing.T) conformance.World {
			a := newAccount(t, aws.Leashed)
			first := a.user(t, "app", allowAll)
			second := a.key(t, "app")
			w := a.world(t, plan.AWSDeactivateKeys, keyTarget(a, first))
			w.Held = func(*testing.T) bool {
				keys := a.State().Entities["user/app"].Keys
				return keys[first.ID] == "Inactive" && keys[second.ID] == "Inactive"
			}
			w.Lift = func(t *testing.T) {
				must(a.admin.UpdateAccessKey(t.Context(), &iam.UpdateAccessKeyInput{UserName: sdk.String("app"), AccessKeyId: &second.ID, Status: types.StatusTypeActive}))(t)
			}
			return w
		},
		Protected: func(t *testing.T) (conformance.World, trust.Protected) {
			a := newAccount(t, aws.Leashed)
			return a.world(t, plan.AWSDeactivateKeys, keyTarget(a, a.user(t, "breakglass-1", allowAll))), trust.Protected{Principals: []string{"BreakGlass-*"}}
		},
	})
}

func TestI11RevokeSessionsConforms(t *testing.T) {
	t.Parallel()
	for _, mode := range []aws.Mode{aws.Leashed, aws.Full} {
		t.Run(string(mode), func(t *testing.T) {
			conformance.Run(t, conformance.Subject{
				Make: func(t *testing.T) conformance.World { return sessionsWorld(t, mode) },
				Protected: func(t *testing.T) (conformance.World, trust.Protected) {
					a := newAccount(t, mode)
					return a.world(t, plan.AWSRevokeSessions, a.role(t, "deployer")), trust.Protected{Principals: []string{"deploy*"}}
				},
			})
		})
	}
}

func sessionsWorld(t *testing.T, mode aws.Mode) conformance.World {
	a := newAccount(t, mode)
	role := a.role(t, "reader")
	w := a.world(t, plan.AWSRevokeSessions, role)
	name := (plan.Intent{IncidentID: conformance.IncidentID, PlanDigest: conformance.PlanDigest, Step: w.Step}).ObjectName()
	w.Held = func(*testing.T) bool {
		e := a.State().Entities["role/reader"]
		return slices.Contains(e.Attached, quarantineARN) || strings.Contains(string(e.Inline[name]), "aws:TokenIssueTime")
	}
	w.Lift = func(t *testing.T) {
		if mode == aws.Full {
			must(a.admin.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: &role.Name, PolicyName: &name}))(t)
			return
		}
		must(a.admin.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: &role.Name, PolicyArn: sdk.String(quarantineARN)}))(t)
	}
	if mode == aws.Full {
		w.Drift = func(t *testing.T) { // someone writes under our name
			must(a.admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &role.Name, PolicyName: &name, PolicyDocument: sdk.String(allowAll)}))(t)
		}
	}
	w.Replace = func(t *testing.T) {
		ctx := t.Context()
		for _, policy := range []string{"own"} {
			must(a.admin.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &role.Name, PolicyName: &policy}))(t)
		}
		must(a.admin.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &role.Name}))(t)
		a.role(t, role.Name)
	}
	return w
}

// replaceUser deletes a user with its key and makes another one of the same name.
func (a *account) replaceUser(t *testing.T, name, keyID string) {
	t.Helper()
	ctx := t.Context()
	must(a.admin.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: &keyID}))(t)
	must(a.admin.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: &name, PolicyName: sdk.String("own")}))(t)
	must(a.admin.DeleteUser(ctx, &iam.DeleteUserInput{UserName: &name}))(t)
	a.user(t, name, allowAll)
}
