package client

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/containerd/containerd/namespaces"
)

// wanted gives what the script that runs this program has set, and skips the test without it: each
// script runs the tests that it has made everything ready for.
func wanted(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Skipf("%s is not set", name)
	}
	return value
}

func inNamespace(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return namespaces.WithNamespace(ctx, wanted(t, "NAMESPACE"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}
