package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func dial(t *testing.T) snapshotsapi.SnapshotsClient {
	connection, err := grpc.Dial("unix://"+wanted(t, "SOCKET"), grpc.WithInsecure())
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return snapshotsapi.NewSnapshotsClient(connection)
}

func expectCode(t *testing.T, what string, err error, allowed ...codes.Code) {
	t.Helper()
	for _, code := range allowed {
		if status.Code(err) == code {
			return
		}
	}
	t.Errorf("%s: %v, expected %v", what, err, allowed)
}

// Keys that try to leave their folder, that are of any length, or no key at all: each is a name
// like any other, or refused, and nothing is made outside the root.
func TestHostileKeys(t *testing.T) {
	client, ctx := dial(t), context.Background()
	root := wanted(t, "ROOT")
	before := outside(t, root)
	for _, key := range []string{"..", "../../x", "/etc/passwd", "a/b/c", ".", "-rf", "a b", "'", `"`, "%s%n", "$(reboot)",
		"\x01\x1b[2J", "ключ", "'; DROP TABLE snapshots; --", strings.Repeat("k", 10000)} {
		_, err := client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: key})
		expectCode(t, fmt.Sprintf("Prepare %.20q", key), err, codes.OK, codes.InvalidArgument)
		if err != nil {
			continue
		}
		_, err = client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: key})
		expectCode(t, fmt.Sprintf("Prepare %.20q twice", key), err, codes.AlreadyExists)
		got, err := client.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Key: key})
		must(t, err)
		if got.Info.Name != key {
			t.Errorf("Stat of %.20q is called %.20q", key, got.Info.Name)
		}
		_, err = client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: key})
		must(t, err)
	}
	for _, key := range []string{"", strings.Repeat("k", 100000)} {
		_, err := client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: key})
		expectCode(t, "Prepare of a key of wrong length", err, codes.InvalidArgument)
	}
	_, err := client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: "nul\x00byte"})
	expectCode(t, "a key with a NUL", err, codes.OK, codes.InvalidArgument)
	if err == nil {
		_, err = client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: "nul"})
		expectCode(t, "a key up to its NUL", err, codes.NotFound)
		_, err = client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: "nul\x00byte"})
		must(t, err)
	}
	if after := outside(t, root); after != before {
		t.Errorf("outside of the root: %s, before: %s", after, before)
	}
	if left, err := os.ReadDir(filepath.Join(root, "snapshots")); err != nil || len(left) != 0 {
		t.Errorf("left in the root: %v, %v", left, err)
	}
}

// The names beside the root.
func outside(t *testing.T, root string) string {
	entries, err := os.ReadDir(filepath.Dir(root))
	must(t, err)
	names := ""
	for _, entry := range entries {
		names += entry.Name() + " "
	}
	return names
}

func TestHostileLabelsAndParents(t *testing.T) {
	client, ctx := dial(t), context.Background()
	prepare := func(key, parent string, labels map[string]string) error {
		_, err := client.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Key: key, Parent: parent, Labels: labels})
		return err
	}
	expectCode(t, "a label of 5000 bytes", prepare("a", "", map[string]string{"l": strings.Repeat("v", 5000)}), codes.InvalidArgument)
	expectCode(t, "a label without a name", prepare("a", "", map[string]string{"": "v"}), codes.InvalidArgument)
	expectCode(t, "a parent that is not there", prepare("a", "nothing", nil), codes.NotFound)
	expectCode(t, "itself for a parent", prepare("a", "a", nil), codes.NotFound)
	must(t, prepare("active", "", nil))
	expectCode(t, "an active parent", prepare("a", "active", nil), codes.InvalidArgument, codes.FailedPrecondition)
	for _, label := range []string{"containerd.io/snapshot/overlaybd.writable", "containerd.io/snapshot/overlaybd/vsize",
		"containerd.io/snapshot/disk_quota", "containerd.io/snapshot/overlaybd/blob-fs-type"} {
		for _, value := range []string{"\n", "-1", "99999999999999999999", "ext4;;-F /dev/sda", "$(id)", "../x", "ext4;;--help"} {
			err := prepare("a", "", map[string]string{label: value})
			if err == nil {
				_, err := client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: "a"})
				must(t, err)
			}
			expectCode(t, label+"="+value, err, codes.OK, codes.InvalidArgument, codes.Unknown)
		}
	}
	_, err := client.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{Info: snapshotsapi.Info{Name: "active", Labels: map[string]string{"l": strings.Repeat("v", 5000)}}})
	expectCode(t, "Update with a label of 5000 bytes", err, codes.InvalidArgument)
	_, err = client.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{})
	expectCode(t, "Update of nothing", err, codes.InvalidArgument, codes.NotFound)
	_, err = client.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Key: "active", Name: ""})
	expectCode(t, "Commit without a name", err, codes.InvalidArgument)
	_, err = client.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Key: "active", Name: "active"})
	if err == nil {
		t.Error("Commit under the key's own name is accepted")
	}
	_, err = client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: "active"})
	must(t, err)
	_, err = client.Mounts(ctx, &snapshotsapi.MountsRequest{Key: "active"})
	expectCode(t, "Mounts of what is gone", err, codes.NotFound)
}

func TestHostileFilters(t *testing.T) {
	client, ctx := dial(t), context.Background()
	snapshotter := proxy.NewSnapshotter(client, "overlaybd")
	label := map[string]string{"long": strings.Repeat("a", 4000), "a.b/c": "x y"}
	for _, key := range []string{"f1", "f2"} {
		_, err := snapshotter.Prepare(ctx, key, "", snapshots.WithLabels(label))
		must(t, err)
		defer snapshotter.Remove(ctx, key)
	}
	list := func(filters ...string) (names []string, err error) {
		err = snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			names = append(names, info.Name)
			return nil
		}, filters...)
		sort.Strings(names)
		return names, err
	}
	for filter, want := range map[string]string{
		`name==f1`:                    "[f1]",
		`name!=f1`:                    "[f2]",
		`name~=^f.$`:                  "[f1 f2]",
		`kind==active,name==f2`:       "[f2]",
		`labels."a.b/c"=="x y"`:       "[f1 f2]",
		`labels."a.b/c"==z`:           "[]",
		`labels.nothing`:              "[]",
		`labels.long~="(a*)*b"`:       "[]",
		`labels.long~="((a+)+)+c|^a"`: "[f1 f2]",
		`unknown==x`:                  "[]",
	} {
		names, err := list(filter)
		if err != nil || fmt.Sprint(names) != want {
			t.Errorf("filter %s: %v, %v, expected %s", filter, names, err, want)
		}
	}
	for _, filter := range []string{`name==`, `name==f1,`, `==f1`, `name~="("`, `name=="`, `labels."`, "name==\"\\xzz\"",
		strings.Repeat("(", 100000), "name~=" + strings.Repeat("(", 5000), `name~="(a{1000}){1000}{1000}"`} {
		names, err := list(filter)
		if err == nil && len(names) != 0 {
			t.Errorf("filter %.30q matches %v", filter, names)
		} else if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("filter %.30q: %v", filter, err)
		}
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("name==x%d", i)
	}
	if names, err := list(append(many, "name==f1")...); err != nil || fmt.Sprint(names) != "[f1]" {
		t.Errorf("501 filters: %v, %v", names, err)
	}
	if names, err := list(make([]string, 100000)...); err == nil && len(names) > 2 || err != nil && !errdefs.IsInvalidArgument(err) {
		t.Errorf("100000 empty filters: %v, %v", names, err)
	}
}

// Many clients that want the same key: one gets it. And whatever order the calls come in, what is
// left can be removed.
func TestRaces(t *testing.T) {
	client, ctx := dial(t), context.Background()
	snapshotter := proxy.NewSnapshotter(client, "overlaybd")
	for round := 0; round < 5; round++ {
		var wait sync.WaitGroup
		var lock sync.Mutex
		made, committed := 0, 0
		for i := 0; i < 8; i++ {
			wait.Add(1)
			go func() {
				defer wait.Done()
				_, prepared := snapshotter.Prepare(ctx, "same", "")
				commit := snapshotter.Commit(ctx, "name", "same")
				snapshotter.Mounts(ctx, "same")
				lock.Lock()
				defer lock.Unlock()
				if prepared == nil {
					made++
				} else if !errdefs.IsAlreadyExists(prepared) {
					t.Errorf("Prepare: %v", prepared)
				}
				if commit == nil {
					committed++
				} else if !errdefs.IsNotFound(commit) && !errdefs.IsAlreadyExists(commit) {
					t.Errorf("Commit: %v", commit)
				}
			}()
		}
		wait.Wait()
		if made < 1 || committed != 1 {
			t.Errorf("round %d: prepared %d times, committed %d times", round, made, committed)
		}
		must(t, removeAll(ctx, snapshotter))
	}
}

// What is mounted is not removed, whoever asks; KEY is a part of its key.
func TestRemoveInUse(t *testing.T) {
	client, ctx := dial(t), context.Background()
	snapshotter := proxy.NewSnapshotter(client, "overlaybd")
	asked := 0
	must(t, snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindActive || !strings.Contains(info.Name, wanted(t, "KEY")) {
			return nil
		}
		asked++
		_, err := client.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Key: info.Name})
		expectCode(t, "Remove of "+info.Name, err, codes.FailedPrecondition)
		return nil
	}))
	if asked != 1 {
		t.Errorf("%d active snapshots are there", asked)
	}
}
