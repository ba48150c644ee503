package client

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

// TestConformance runs containerd's own tests of snapshotters. Each case gets a snapshotter of its
// own, started on the case's folder, behind containerd's client for proxy plugins.
func TestConformance(t *testing.T) {
	program := wanted(t, "SNAPSHOTTER")
	testsuite.SnapshotterSuite(t, "overlaybd", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		return startSnapshotter(ctx, program, root)
	})
}

func startSnapshotter(ctx context.Context, program, root string) (snapshots.Snapshotter, func() error, error) {
	var config map[string]interface{}
	if err := json.Unmarshal([]byte(os.Getenv("CONFIG")), &config); err != nil {
		return nil, nil, fmt.Errorf("CONFIG: %w", err)
	}
	socket := filepath.Join(root, "s")
	config["root"] = root
	config["address"] = socket
	text, err := json.Marshal(config)
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(root, "config.json")
	if err := os.WriteFile(file, text, 0600); err != nil {
		return nil, nil, err
	}
	log, err := os.OpenFile(os.Getenv("LOG"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0600)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	command := exec.Command(program, "--config", file)
	command.Stderr = log
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	connection, err := grpc.DialContext(dialing, "unix://"+socket,
		grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		command.Process.Kill()
		command.Wait()
		return nil, nil, err
	}
	snapshotter := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "overlaybd")
	return snapshotter, func() error {
		// Whatever the case leaves has to be removable, children first.
		err := removeAll(context.Background(), snapshotter)
		connection.Close()
		command.Process.Signal(syscall.SIGTERM)
		if ended := command.Wait(); err == nil {
			err = ended
		}
		return err
	}, nil
}

func removeAll(ctx context.Context, snapshotter snapshots.Snapshotter) error {
	for {
		parents := map[string]bool{}
		var names []string
		err := snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			parents[info.Parent] = true
			names = append(names, info.Name)
			return nil
		})
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if parents[name] {
				continue
			}
			unmountBelow(filepath.Dir(name))
			if err := snapshotter.Remove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
	}
}

// A case that fails leaves its own mounts in its folder `work`.
func unmountBelow(folder string) {
	if filepath.Base(folder) != "work" {
		return
	}
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for _, line := range strings.Split(string(table), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], folder+"/") {
			syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
}
