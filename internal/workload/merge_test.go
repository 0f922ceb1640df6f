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

// TestBefore takes back the change of each field alone: it, and no other, is as before.
func TestBefore(t *testing.T) {
	n, m := int64(1), int64(2)
	adj := 3
	had := Resources{Memory: &n, MemorySwap: &n, MemoryReservation: &n, CPUs: 1, CPUWeight: 2, CpusetCPUs: "0", CpusetMems: "0", Pids: &n, IOWeight: 10, OOMScoreAdj: &adj}
	changed := Resources{Memory: &m, MemorySwap: &m, MemoryReservation: &m, CPUs: 2, CPUWeight: 3, CpusetCPUs: "1", CpusetMems: "1", Pids: &m, IOWeight: 20}
	all := reflect.ValueOf(changed)
	for i := range all.NumField() {
		if all.Field(i).IsZero() {
			continue
		}
		var one, want Resources
		reflect.ValueOf(&one).Elem().Field(i).Set(all.Field(i))
		reflect.ValueOf(&want).Elem().Field(i).Set(reflect.ValueOf(had).Field(i))
		if got := had.Before(one); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", all.Type().Field(i).Name, got)
		}
	}
	if got := (Resources{}).Before(changed); !reflect.DeepEqual(got, Resources{}) {
		t.Errorf("of none: got %+v", got)
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
