package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/datadisk"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tsc"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// defaultDisk is the size of a writable disk where none was asked for, in
// bytes. It is sparse: what is not written takes no room.
const defaultDisk = 10 << 30

// machines prepares what virtual machines are made from. It implements
// engine.MachineSource.
type machines struct {
	a      *app
	root   string
	images *image.Store
}

// Disk returns an image as one disk.
func (m *machines) Disk(ctx context.Context, img workload.Image) (workload.Disk, func(), error) {
	d, release, err := m.images.Disk(ctx, img, nil)
	if err != nil {
		return workload.Disk{}, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	return workload.Disk{Path: d.Path, MaxID: d.MaxID}, release, nil
}

// DataDisk makes an empty writable disk.
func (m *machines) DataDisk(ctx context.Context, path string, size int64) error {
	if size == 0 {
		size = defaultDisk
	}
	return datadisk.Make(ctx, path, size, datadisk.Templates(filepath.Join(m.root, "disks")))
}

// Start settles kernel, accelerator and file server.
func (m *machines) Start(ctx context.Context, v workload.VM, to *boundary.Machine) (err error) {
	if to.FileServer, err = findProgram("bulkhead-fileserver"); err != nil {
		return err
	}
	if v.Tenant != "" {
		return nil // kernel and accelerator are those of the tenant's machine
	}
	choosing := trace.Step(ctx, "accelerator chosen")
	accel, err := qemu.Choose(ctx, v.Accel)
	choosing.End()
	if err != nil {
		return advice.Wrap(err, err.Error(), "leave out --accel, which takes what works; `bulkhead doctor` says what that is")
	}
	to.Accel, to.TSC = string(accel), 0
	if accel == qemu.TCG {
		if to.TSC, err = tsc.Rate(filepath.Join(m.root, "tsc")); err != nil {
			return err
		}
	}
	agent, err := findProgram("bulkhead-agent")
	if err != nil {
		return err
	}
	init, err := findProgram("bulkhead-init")
	if err != nil {
		return err
	}
	store, err := kernel.Open(m.root)
	if err != nil {
		return err
	}
	defer trace.Step(ctx, "kernel made ready").End()
	d := m.a.progress(false)
	defer d.Close()
	k, err := store.Resolve(ctx, v.Kernel, kernel.Wanted{Agent: agent, Init: init}, d)
	switch {
	case errors.Is(err, kernel.ErrNotFound):
		return advice.Wrap(err, err.Error(), "`bulkhead kernel ls` lists the kernels there are; --kernel also takes the path of one")
	case err != nil:
		return err
	}
	to.Kernel, to.Initramfs, to.MMIO = k.Image, k.Initramfs, k.MMIO
	if v.System {
		switch err := store.Index(ctx, k, d); {
		case errors.Is(err, kernel.ErrDepmod):
			return advice.Wrap(err, err.Error(), "install the package kmod")
		case err != nil:
			return err
		}
	}
	to.Modules, to.Release = k.ModulesDir, k.Release
	return nil
}

// Template makes a template if there is none. Without one the machine boots.
func (m *machines) Template(ctx context.Context, s workload.Spec, p boundary.Prepared) error {
	err := m.making(&p, func(on vm.Progress) error { return vm.Boundary{}.Template(ctx, s, p, on) })
	var fault *qemu.Fault
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &fault) && !errors.Is(err, syscall.ENOSPC):
		return err // it would not boot for a workload, either
	case err != nil:
		p.Machine.Templates = ""
		m.a.warn("the machine boots, as no template could be made: " + err.Error())
	}
	return nil
}

// making lets f make a template, and shows how it goes on.
func (m *machines) making(p *boundary.Prepared, f func(vm.Progress) error) (err error) {
	name := "template"
	d := m.a.progress(!terminal.IsTerminal(m.a.err)) // of no use where nobody waits
	defer d.Close()
	p.Machine.Templates = filepath.Join(m.root, templatesDir)
	made := false
	err = f(vm.Progress{
		Begin: func(image string) {
			if made = true; image != "" {
				name = "template of " + image
			}
			d.Update(name, "booting a machine to make it from", 0, 0)
		},
		Failed: func(err error) { m.a.warn("no template of the image could be made: " + err.Error()) },
		Wait:   func() { d.Update(name, "waiting for another command to make it", 0, 0) },
	})
	if err == nil && made {
		d.Done(name, "made: machines like this one need not boot any more")
	}
	return err
}

// WarmTemplate makes a template of an image.
func (m *machines) WarmTemplate(ctx context.Context, s workload.Spec, p boundary.Prepared) (key string, err error) {
	err = m.making(&p, func(on vm.Progress) error {
		key, err = vm.Boundary{}.ImageTemplate(ctx, s, p, on)
		return err
	})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return key, err
}

// WarmKey is the key of such a template.
func (m *machines) WarmKey(_ context.Context, s workload.Spec, p boundary.Prepared) (string, error) {
	p.Machine.Templates = filepath.Join(m.root, templatesDir)
	return vm.Boundary{}.ImageKey(s, p)
}

// toldEmulation is the file in the state directory that says so was done.
const toldEmulation = "told-emulation"

// Started says once that emulation is no security boundary: where it was asked for,
// and where it was not, and there again after a machine had KVM. inspect and doctor
// say it whenever they are asked.
func (m *machines) Started(v workload.VM, of *boundary.Machine) {
	told := filepath.Join(m.root, toldEmulation)
	if of.Accel != string(qemu.TCG) {
		_ = os.Remove(told) // most often there is none
		return
	}
	if v.Accel != "" {
		told += "-asked"
	}
	f, err := os.OpenFile(told, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // told already
	}
	f.Close()
	m.a.warn(qemu.NoBoundary)
}
