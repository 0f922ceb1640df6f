package workload

import (
	"reflect"
	"testing"
)

// TestMerge changes each field alone: all others stay.
func TestMerge(t *testing.T) {
	one, two, adj := int64(1), int64(2), 5
	old := Resources{Memory: &one, MemorySwap: &one, MemoryReservation: &one, Pids: &one, CPUs: 1, CPUWeight: 1, CpusetCPUs: "1", CpusetMems: "1", IOWeight: 1, OOMScoreAdj: new(int), ShmSize: 1}
	for _, changed := range []Resources{
		{}, {Memory: &two}, {MemorySwap: &two}, {MemoryReservation: &two}, {Pids: &two}, {CPUs: 2}, {CPUWeight: 2},
		{CpusetCPUs: "2"}, {CpusetMems: "2"}, {IOWeight: 2}, {OOMScoreAdj: &adj},
	} {
		got := old.Merge(changed)
		want := reflect.ValueOf(&old).Elem()
		for i := range want.NumField() {
			field := reflect.ValueOf(changed).Field(i)
			if field.IsZero() {
				field = want.Field(i)
			}
			if !reflect.DeepEqual(reflect.ValueOf(got).Field(i).Interface(), field.Interface()) {
				t.Errorf("%+v: got %s %v", changed, want.Type().Field(i).Name, reflect.ValueOf(got).Field(i))
			}
		}
	}
}

func TestCoherent(t *testing.T) {
	one, two, none := int64(1), int64(2), int64(-1)
	for _, tt := range []struct {
		r  Resources
		ok bool
	}{
		{Resources{}, true},
		{Resources{Memory: &two, MemorySwap: &two, MemoryReservation: &one}, true},
		{Resources{Memory: &two, MemorySwap: &none}, true},
		{Resources{Memory: &two, MemorySwap: &one}, false},
		{Resources{Memory: &one, MemoryReservation: &two}, false},
		{Resources{MemorySwap: &two}, false},
	} {
		if err := tt.r.Coherent(); (err == nil) != tt.ok {
			t.Errorf("%+v: got %v", tt.r, err)
		}
	}
}
