package client

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/opencontainers/image-spec/identity"
)

// TestRunContainer runs the program of docs/containerd.md. How the command ends tells what it saw:
// a root on a block device, with the image's files in it.
func TestRunContainer(t *testing.T) {
	address, image := wanted(t, "ADDRESS"), wanted(t, "IMAGE")
	const script = `grep -q '^/dev/.* / ext4 ' /proc/mounts && grep -q second /etc/changed && echo new >/etc/new && exit 7`
	for i := 0; i < 2; i++ {
		status, err := RunContainer(address, wanted(t, "NAMESPACE"), image, fmt.Sprintf("api%d", i), "/bin/sh", "-c", script)
		must(t, err)
		if status != 7 {
			t.Fatalf("the command ended with %d", status)
		}
	}
}

// TestLabels makes snapshots through containerd's snapshot service with every label that means
// something, and looks at the mounts that come back.
func TestLabels(t *testing.T) {
	address, name := wanted(t, "ADDRESS"), wanted(t, "IMAGE")
	ctx := inNamespace(t)
	client, err := containerd.New(address)
	must(t, err)
	defer client.Close()
	image, err := client.GetImage(ctx, name)
	must(t, err)
	ids, err := image.RootFS(ctx)
	must(t, err)
	parent := identity.ChainID(ids).String()
	service := client.SnapshotService("overlaybd")

	const prefix = "containerd.io/snapshot/"
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)})
	for _, test := range []struct {
		key, parent string
		labels      map[string]string
		want        string
	}{
		{"dir", parent, map[string]string{prefix + "overlaybd.writable": "dir"}, "bind rw"},
		{"dev", parent, map[string]string{prefix + "overlaybd.writable": "dev"}, "ext4 rw,discard"},
		{"larger", parent, map[string]string{prefix + "overlaybd.writable": "dir", prefix + "overlaybd/vsize": "2"}, "bind rw"},
		{"first", "", map[string]string{prefix + "overlaybd.writable": "dev", prefix + "overlaybd/vsize": "1",
			prefix + "overlaybd/blob-fs-type": "ext4;noatime;-b 4096"}, "ext4 rw"},
	} {
		mounts, err := service.Prepare(ctx, test.key, test.parent, root, snapshots.WithLabels(test.labels))
		if err != nil {
			t.Errorf("%s: %v", test.key, err)
			continue
		}
		got := ""
		for _, mount := range mounts {
			got += mount.Type + " " + strings.Join(mount.Options, ",")
		}
		if len(mounts) != 1 || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: mounts are %q, expected %q", test.key, got, test.want)
		}
		again, err := service.Mounts(ctx, test.key)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(mounts) {
			t.Errorf("%s: Mounts gives %v, %v after %v", test.key, again, err, mounts)
		}
		where := filepath.Join(t.TempDir(), "mnt")
		must(t, os.Mkdir(where, 0700))
		if err := mount.All(mounts, where); err != nil {
			t.Errorf("%s: %v", test.key, err)
			continue
		}
		if err := os.WriteFile(where+"/written", []byte("x"), 0600); err != nil {
			t.Errorf("%s: %v", test.key, err)
		}
		must(t, mount.UnmountAll(where, 0))
		must(t, service.Remove(ctx, test.key))
	}
	for value, label := range map[string]string{"wrong": "overlaybd.writable", "0": "overlaybd/vsize", "x": "disk_quota", ";;": "overlaybd/blob-fs-type"} {
		_, err := service.Prepare(ctx, "refused", parent, root, snapshots.WithLabels(map[string]string{prefix + label: value}))
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("label %s of value %q: %v", label, value, err)
		}
		if err != nil && !strings.Contains(err.Error(), label) {
			t.Errorf("the error does not name the label %s: %v", label, err)
		}
	}
}
