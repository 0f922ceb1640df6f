package container

import (
	"os"
	"reflect"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMapsOfNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	uids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 20, HostID: 5000, Size: 1}}
	gids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 5}}
	fd, err := mapNamespace(uids, gids)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m, err := mapsOf("/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(fd))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, idMap{uids, gids}) {
		t.Errorf("got %+v, want %+v, %+v", m, uids, gids)
	}
	if _, err := mapsOf("/dev/null"); err == nil {
		t.Error("a file that is no namespace has maps")
	}
}
