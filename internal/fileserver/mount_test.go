package fileserver_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
)

func TestHostSeesWhatIsWritten(t *testing.T) {
	source, inside, _ := mount(t, fileserver.Config{})
	if err := os.WriteFile(filepath.Join(inside, "a"), []byte("hello"), 0o640); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(source, "a"))
	if err != nil || string(b) != "hello" {
		t.Fatalf("read %q, %v", b, err)
	}
}
