package image_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestMain lets the test binary be another user of a store: a process that
// can be killed.
func TestMain(m *testing.M) {
	if role := os.Getenv("IMAGE_TEST_ROLE"); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func play(role string) error {
	root := os.Getenv("IMAGE_TEST_ROOT")
	switch role {
	case "churn":
		who, err := strconv.Atoi(os.Getenv("IMAGE_TEST_WHO"))
		if err != nil {
			return err
		}
		return churn(root, os.Getenv("IMAGE_TEST_LAYOUT"), who, 8)
	case "disk":
		s, err := image.Open(root)
		if err != nil {
			return err
		}
		made := false
		d, release, err := s.Disk(context.Background(), workload.Image{Digest: os.Getenv("IMAGE_TEST_DIGEST")}, func(int64) { made = true })
		if err != nil {
			return err
		}
		defer release()
		fmt.Println(made, d.Size)
		return nil
	case "import":
		s, err := image.Open(root)
		if err != nil {
			return err
		}
		_, err = archive.Import(context.Background(), s, os.Stdin, archive.ImportOptions{Name: "imported"})
		return err
	}
	return errors.New("unknown role " + role)
}

func player(t *testing.T, role, root string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), append(env, "IMAGE_TEST_ROLE="+role, "IMAGE_TEST_ROOT="+root)...)
	cmd.Stderr = os.Stderr
	return cmd
}

func TestConcurrentProcesses(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	layered(t).Layout(t, dir, "latest")
	var all []*exec.Cmd
	for i := range 5 {
		cmd := player(t, "churn", root, "IMAGE_TEST_LAYOUT="+dir, "IMAGE_TEST_WHO="+strconv.Itoa(i))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	checkConsistent(t, root)
}

// TestKilled kills processes that load and remove, again and again, at
// whatever they are doing, and then wants a clean and whole store.
func TestKilled(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	layered(t).Layout(t, dir, "latest")
	for i := range 12 {
		cmd := player(t, "churn", root, "IMAGE_TEST_LAYOUT="+dir, "IMAGE_TEST_WHO="+strconv.Itoa(i))
		cmd.Stderr = nil
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+i*9) * time.Millisecond) // another moment each time
		cmd.Process.Kill()
		cmd.Wait()
		checkConsistent(t, root)
	}
}

// TestKilledWhileImporting kills a process that is surely in the middle of
// writing a blob and unpacking it.
func TestKilledWhileImporting(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	cmd := player(t, "import", root)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	layer := imagetest.Tar(t, imagetest.File("one", strings.Repeat("x", 2<<20)), imagetest.File("two", strings.Repeat("y", 2<<20)))
	if _, err := in.Write(layer[:3<<20]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		found, _ := filepath.Glob(filepath.Join(root, "images/tmp/op-*/layer-*/fs/one"))
		return len(found) == 1
	})
	s, err := image.Open(root) // must not take the living one's files away
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(root, "images/tmp/op-*/layer-*/fs/one")); len(found) != 1 {
		t.Error("opening the store removed the files of a living operation")
	}
	if _, err := s.Prune(true, nil); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if s, err = image.Open(root); err != nil {
		t.Fatal(err)
	}
	checkClean(t, root)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("List() = %v, %v; want nothing", list, err)
	}
	if _, err := archive.Import(context.Background(), s, io.Reader(strings.NewReader(string(layer))), archive.ImportOptions{Name: "imported"}); err != nil {
		t.Errorf("import after the kill: %v", err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited ten seconds in vain")
}
