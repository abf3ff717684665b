package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// keyState is an access key as a pre-image records it.
type keyState struct {
	Key    string           `json:"key"`
	User   string           `json:"user"`
	UserID string           `json:"user_id"`
	Status types.StatusType `json:"status"`
}

// keysReader observes aws/deactivate-keys: the step names one key, its closure is all keys of the owner.
type keysReader struct{ *System }

// Expand returns the step's key, or with a closure every key of its owner.
func (k keysReader) Expand(ctx context.Context, s plan.Step) ([]plan.Target, error) {
	if err := k.inAccount(s.Target); err != nil {
		return nil, err
	}
	owner, err := k.ownerOf(ctx, s.Target.Name)
	if err != nil {
		return nil, err
	}
	keys, err := k.keysOf(ctx, owner.Name)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, func(key keyState) bool { return key.Key == s.Target.Name }) {
		return nil, fmt.Errorf("access key %s: is gone: %w", s.Target.Name, activities.ErrConflict)
	}
	var found []plan.Target
	for _, key := range keys {
		if key.Key == s.Target.Name || s.Closure != nil {
			found = append(found, k.keyTarget(key.Key, owner))
		}
	}
	return found, nil
}

// keyTarget names a key. Namespace is its owner with the path, so that the judge can check whose key it is.
func (s *System) keyTarget(id string, owner principal) plan.Target {
	_, resource, _ := splitARN(owner.ARN)
	return plan.Target{Kind: plan.AccessKey, Scope: s.options.Account, Namespace: strings.TrimPrefix(resource, "user/"), Name: id, UID: id}
}

// keysOf lists the access keys of a user, by id.
func (s *System) keysOf(ctx context.Context, user string) ([]keyState, error) {
	var keys []keyState
	pages := iam.NewListAccessKeysPaginator(s.iam, &iam.ListAccessKeysInput{UserName: &user})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, callError("list access keys of user "+user, err, false)
		}
		for _, m := range page.AccessKeyMetadata {
			keys = append(keys, keyState{Key: sdk.ToString(m.AccessKeyId), User: user, Status: m.Status})
		}
	}
	slices.SortFunc(keys, func(a, b keyState) int { return strings.Compare(a.Key, b.Key) })
	return keys, nil
}

func (s *System) readKey(ctx context.Context, t plan.Target) (keyState, error) {
	if err := s.inAccount(t); err != nil {
		return keyState{}, err
	}
	owner, err := s.ownerOf(ctx, t.Name)
	if err != nil {
		return keyState{}, err
	}
	keys, err := s.keysOf(ctx, owner.Name)
	if err != nil {
		return keyState{}, err
	}
	for _, key := range keys {
		if key.Key == t.Name {
			key.UserID = owner.ID
			return key, nil
		}
	}
	return keyState{}, fmt.Errorf("%s: is gone: %w", t, activities.ErrConflict)
}

func (s *System) keyLever() lever[keyState] {
	return lever[keyState]{
		read:  s.readKey,
		cut:   func(now keyState) keyState { now.Status = types.StatusTypeInactive; return now },
		on:    func(pre, now keyState) bool { pre.Status = types.StatusTypeInactive; return now == pre },
		write: s.writeKey,
		did:   "set to Inactive",
	}
}

func (s *System) writeKey(ctx context.Context, t plan.Target, _, to keyState) (time.Time, error) {
	out, err := s.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: &to.User, AccessKeyId: &to.Key, Status: to.Status}, once)
	if err != nil {
		return time.Time{}, callError(fmt.Sprintf("set %s to %s", t, to.Status), err, true)
	}
	return s.serverTime(out.ResultMetadata), nil
}

// Capture records the key's status.
func (k keysReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	return k.keyLever().capture(ctx, t)
}

// Verify reads the status back and looks for uses of the key after the change. Nobody but the attacker has the secret
// to try the key with.
func (k keysReader) Verify(ctx context.Context, in plan.Intent, r plan.Receipt) (plan.Observation, error) {
	return k.observe(ctx, in, r, func(o *sight) error {
		owners := map[string]bool{}
		for _, t := range in.Targets {
			key, err := k.readKey(ctx, t)
			if err := o.readBack(t, err, key.Status == types.StatusTypeInactive, "is Inactive", "is "+string(key.Status)); err != nil {
				return err
			}
			if err != nil {
				continue
			}
			k.lastUse(ctx, o, t.Name)
			k.auditKey(ctx, o, t.Name)
			owners[key.User] = true
		}
		if in.Step.Closure == nil {
			return nil
		}
		return k.newKeys(ctx, o, in, owners)
	})
}

// newKeys looks for active keys of the owners that the step did not find: an attacker who holds a key makes another in
// the seconds before authorization follows.
func (k keysReader) newKeys(ctx context.Context, o *sight, in plan.Intent, owners map[string]bool) error {
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		keys, err := k.keysOf(ctx, owner)
		if err != nil {
			return err
		}
		for _, key := range keys {
			known := slices.ContainsFunc(in.Targets, func(t plan.Target) bool { return t.Name == key.Key })
			if !known && key.Status == types.StatusTypeActive {
				o.breaks("user %s has the active access key %s, which the step did not find: it was made since", owner, key.Key)
			}
		}
	}
	return nil
}

type deactivateKeys struct{ keysReader }

// Apply sets every key to Inactive. None is deleted: its id is needed to read the audit log.
func (d deactivateKeys) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	return applyWith(ctx, d.System, in, func(time.Time) lever[keyState] { return d.keyLever() })
}

// Undo puts each key back to its recorded status, which is not always Active.
func (d deactivateKeys) Undo(ctx context.Context, in plan.Intent, _ plan.Receipt) error {
	return undoWith(ctx, d.System, in, d.keyLever())
}
