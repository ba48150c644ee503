// Package client is what a user of containerd's Go API does with the snapshotter. The part between
// the two marks stands in docs/containerd.md as well; a test compares them.
package client

// begin docs/containerd.md

import (
	"context"
	"fmt"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/cio"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/oci"
	"github.com/containerd/containerd/snapshots"
)

// RunContainer runs a command in a container whose root is a block device of its own, of which it
// may fill one gigabyte, and returns how the command ended.
func RunContainer(address, namespace, image, name string, command ...string) (uint32, error) {
	client, err := containerd.New(address)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	base, err := client.GetImage(ctx, image)
	if err != nil {
		return 0, err
	}
	if unpacked, err := base.IsUnpacked(ctx, "overlaybd"); err != nil {
		return 0, err
	} else if !unpacked {
		if err := base.Unpack(ctx, "overlaybd"); err != nil {
			return 0, err
		}
	}
	container, err := client.NewContainer(ctx, name,
		containerd.WithSnapshotter("overlaybd"),
		containerd.WithNewSnapshot(name, base, snapshots.WithLabels(map[string]string{
			"containerd.io/snapshot/overlaybd.writable": "dev",
			"containerd.io/snapshot/disk_quota":         "1g",
		})),
		containerd.WithNewSpec(oci.WithImageConfig(base), oci.WithProcessArgs(command...)))
	if err != nil {
		return 0, err
	}
	defer container.Delete(ctx, containerd.WithSnapshotCleanup)
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return 0, err
	}
	defer task.Delete(ctx, containerd.WithProcessKill)
	ended, err := task.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	status := <-ended
	if status.Error() != nil {
		return 0, fmt.Errorf("%s: %w", name, status.Error())
	}
	return status.ExitCode(), nil
}

// end docs/containerd.md
