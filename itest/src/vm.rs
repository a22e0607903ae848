// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual machine on kvm-ioctls, small enough to know exactly what its stage-2 table must hold.
//!
//! A vCPU runs only while it obeys an order, so between two calls the guest is idle; but for [`Vm::spin`] and
//! [`Vm::churn`], which do not return.

// UNSAFETY: gives host memory to KVM and reads CTR_EL0.
#![expect(unsafe_code, reason = "KVM and CTR_EL0")]

use crate::expect::{Entry, Expected, Given, LeafMap, State};
use crate::guest;
use crate::machine::Flavor;
use crate::memory::{kernel_read, HostMemory, PageMap};
use crate::script::{block_bytes, page_bytes, Backing, MemorySpec, Place, Step, Verb};
use anyhow::{bail, ensure, Context as _, Result};
use kvm_bindings::{
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_userspace_memory_region,
    kvm_vcpu_init, KVM_ARM_VCPU_PSCI_0_2, KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_MEM_READONLY, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::Advice;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// `KVM_VM_TYPE_ARM_PROTECTED`.
const TYPE_PROTECTED: u64 = 1 << 31;
/// Where the GICv3 distributor and redistributors are. Protected guests cannot do without.
const GIC_DIST_IPA: u64 = 0x0800_0000;
const GIC_REDIST_IPA: u64 = 0x080a_0000;
/// `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE`, and the program counter's place among the core registers.
const REGISTER_PC: u64 = 0x6030_0000_0010_0040;

/// What to make.
#[derive(Clone, Debug)]
pub struct Config {
    /// A protected guest.
    pub protected: bool,
    /// How many vCPUs.
    pub vcpus: usize,
    /// Input-address bits; as many as there can be if not said.
    pub ipa_bits: Option<u32>,
    /// Memory beside the code page.
    pub memory: Vec<MemorySpec>,
    /// How many VMs beside this one, that have nothing and never run.
    pub beside: usize,
}

/// A VM, torn down on drop in the order KVM wants: vCPUs, VM, then its memory.
#[derive(Debug)]
pub struct Vm {
    vcpus: Vec<VcpuFd>,
    _gic: kvm_ioctls::DeviceFd,
    fd: VmFd,
    _beside: Vec<VmFd>,
    /// In the order of memory slots.
    memory: Vec<HostMemory>,
    /// Memory slots that were taken away from the guest.
    forgotten: BTreeSet<u32>,
    leaves: LeafMap,
    /// Blocks of `thp` memory that are touched as blocks, by input address.
    large: BTreeSet<u64>,
    protected: bool,
    /// Whether pKVM maps blocks for a protected guest.
    protected_blocks: bool,
    ipa_bits: u32,
    ran: bool,
}

impl Vm {
    /// Makes a VM that has not run.
    ///
    /// # Errors
    ///
    /// Names the step KVM refused, and what to do about the usual reasons.
    pub fn new(config: &Config) -> Result<Self> {
        let kvm = Kvm::new().context("opening /dev/kvm: is this a kernel with KVM, started at EL2?")?;
        let ipa_bits = config.ipa_bits.unwrap_or(match kvm.check_extension_int(Cap::ArmVmIPASize) {
            bits @ 32..=64 => bits as u32,
            _ => 40,
        });
        let kind = u64::from(ipa_bits) | if config.protected { TYPE_PROTECTED } else { 0 };
        let fd = kvm.create_vm_with_type(kind).with_context(|| match config.protected {
            true => "making a protected VM: the kernel must be started with kvm-arm.mode=protected",
            false => "making a VM: has this machine that many input-address bits?",
        })?;
        let code_page = MemorySpec {
            ipa: guest::CODE_IPA,
            size_bytes: page_bytes(),
            backing: Backing::Anonymous,
            read_only: false,
        };
        let mut memory = vec![HostMemory::map(&code_page)?];
        memory[0].write_at_start(guest::code());
        for spec in &config.memory {
            memory.push(HostMemory::map(spec)?);
        }
        for (slot, piece) in (0..).zip(&memory) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: if piece.spec.read_only { KVM_MEM_READONLY } else { 0 },
                guest_phys_addr: piece.spec.ipa,
                memory_size: piece.spec.size_bytes,
                userspace_addr: piece.host_address(),
            };
            // SAFETY:
            // - The range is a live mapping of exactly that size, unmapped only after the VM is gone (field order).
            // - No Rust reference to it is ever made.
            unsafe { fd.set_user_memory_region(region) }
                .with_context(|| format!("giving the guest memory at {:#x}", piece.spec.ipa))?;
        }
        let beside = (0..config.beside).map(|_| kvm.create_vm_with_type(kind)).collect::<Result<Vec<_>, _>>();
        let beside = beside.context("making VMs beside this one")?;
        let vcpus = (0..config.vcpus).map(|index| new_vcpu(&fd, index)).collect::<Result<Vec<_>>>()?;
        let gic = new_gic(&fd).context("making a GICv3: the machine needs one (QEMU: gic-version=3)")?;
        Ok(Self {
            vcpus,
            _gic: gic,
            fd,
            _beside: beside,
            memory,
            forgotten: BTreeSet::new(),
            leaves: LeafMap::default(),
            large: BTreeSet::new(),
            protected: config.protected,
            protected_blocks: Flavor::look()?.has_protected_blocks(),
            ipa_bits,
            ran: false,
        })
    }

    /// Does one step, and notes what it did to the table.
    ///
    /// # Errors
    ///
    /// If the step makes no sense for this VM, or KVM or the hypervisor refused it.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        let default_ipa = self.memory.get(1).map(|piece| piece.spec.ipa);
        let ipa = step.ipa.or(default_ipa).context("no memory (--mem) and no address")?;
        let pages: Vec<u64> = step.addresses(ipa).context("too many pages")?.collect();
        for &page in &pages {
            let (is_memory, is_device) = (self.host_address_of(page).is_some(), step.verb == Verb::Guard);
            ensure!(is_memory || is_device, "{page:#x} is not in any --mem");
            ensure!(!is_memory || !is_device, "{page:#x} is memory, not a device");
        }
        ensure!(self.protected || !step.verb.is_for_protected(), "only a protected guest can {step:?}");
        ensure!(!self.protected || !step.verb.is_for_ordinary(), "the memory of a protected guest stays: {step:?}");
        let verb = match step.verb {
            Verb::Touch => guest::VERB_STORE,
            Verb::Read => guest::VERB_LOAD,
            Verb::Call => guest::VERB_CALL,
            Verb::Share => guest::VERB_SHARE,
            Verb::Unshare => guest::VERB_UNSHARE,
            Verb::TouchShare => guest::VERB_STORE_SHARE,
            Verb::Guard => guest::VERB_GUARD,
            Verb::Poison => return self.poison(&pages),
            Verb::Drop | Verb::Populate | Verb::Large | Verb::Small => return self.advise(ipa, &pages, step),
            Verb::Forget => return self.forget(ipa),
        };
        let refused = self.order(verb, ipa, step)?;
        ensure!(refused == 0, "the hypervisor refused {refused} of {} hypercalls of {step:?}", step.pages);
        if step.verb == Verb::Guard {
            let guard = |page| (page, Entry::invalid(State::MmioGuard));
            self.leaves.0.extend(pages.into_iter().chain([guest::PORT_IPA]).map(guard));
            return Ok(());
        }
        for page in pages {
            self.note(page, step.verb);
        }
        Ok(())
    }

    /// Has the first vCPU stay in the guest for good, on one CPU: then that CPU has the guest's table in its registers
    /// nearly always.
    ///
    /// # Errors
    ///
    /// If KVM refuses; it does not return otherwise.
    pub fn spin(&mut self, cpu: usize) -> Result<()> {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(cpu);
        rustix::thread::sched_setaffinity(None, &cpus).with_context(|| format!("moving to CPU {cpu}"))?;
        let step = Step { vcpu: 0, verb: Verb::Read, ipa: None, pages: 1, stride: 1 };
        self.order(guest::VERB_SPIN, 0, &step)?;
        bail!("the guest obeyed an order that has no end")
    }

    /// Has the first vCPU store to each of the pages of `place` again and again. Each time that is done another thread gives
    /// the memory of all blocks back to the host, and turns `thp` memory from pages to one page and back. So full tables of
    /// level 3 become holes and blocks all the time, and come again.
    ///
    /// # Errors
    ///
    /// If the place makes no sense or KVM refuses; it does not return otherwise.
    pub fn churn(mut self, place: &Place) -> Result<()> {
        /// From one look at what the guest has done to the next.
        const PAUSE: Duration = Duration::from_micros(50);
        let rounds = AtomicUsize::new(0);
        ensure!(!self.protected, "the memory of a protected guest stays");
        let default_ipa = self.memory.get(1).map(|piece| piece.spec.ipa);
        let ipa = place.ipa.or(default_ipa).context("no memory (--mem) and no address")?;
        let step = Step { vcpu: 0, verb: Verb::Touch, ipa: Some(ipa), pages: place.pages, stride: place.stride };
        let blocks: BTreeSet<u64> =
            step.addresses(ipa).context("too many pages")?.map(|page| page / block_bytes() * block_bytes()).collect();
        let memory = core::mem::take(&mut self.memory);
        let piece = memory.iter().find(|piece| piece.host_address_of(ipa).is_some()).context("not in any --mem")?;
        let transparent = piece.spec.backing == Backing::Transparent;
        let drop_all = || -> Result<core::convert::Infallible> {
            let mut seen = 0;
            loop {
                let round = rounds.load(Ordering::Relaxed);
                if round == seen {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                seen = round;
                for (number, &block) in blocks.iter().enumerate() {
                    if transparent {
                        let large = (round + number) % 2 == 0;
                        let advice = if large { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
                        piece.advise(block, block_bytes(), advice)?;
                    }
                    piece.advise(block, block_bytes(), Advice::LinuxDontNeed)?;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Err(error) = drop_all();
                // The other thread has no end.
                eprintln!("churn: {error:#}");
                std::process::exit(1);
            });
            loop {
                self.order(guest::VERB_STORE, ipa, &step)?;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Tells what the table must hold now, with output addresses if asked for (then present pages only).
    ///
    /// # Errors
    ///
    /// If a mapped page has no physical address.
    pub fn expected(&self, physical: bool) -> Result<Expected> {
        let mut leaves = self.leaves.clone();
        if physical {
            let map = PageMap::open()?;
            for (&ia, entry) in leaves.0.iter_mut().filter(|(_, entry)| entry.is_leaf()) {
                let piece = self.piece_of(ia).context("a mapped page without memory")?;
                let offset = ia - piece.spec.ipa;
                entry.oa = Some(match piece.spec.backing {
                    // The page map leaves out what is no memory.
                    Backing::Device(address) => address + offset,
                    _ => map.physical_address(piece.host_address() + offset)?,
                });
            }
        }
        let pid = std::process::id();
        Ok(Expected {
            pid,
            debugfs: format!("{pid}-{}", self.fd.as_raw_fd()),
            protected: self.protected,
            ipa_bits: self.ipa_bits,
            vcpus: self.vcpus.len(),
            ran: self.ran,
            runs: leaves.runs(),
            memory: self.given(),
        })
    }

    fn given(&self) -> Vec<Given> {
        let slots = (0..).zip(&self.memory).filter(|(slot, _)| !self.forgotten.contains(&u32::from(*slot)));
        let mut given: Vec<Given> = slots
            .map(|(id, piece)| Given {
                id,
                ia: piece.spec.ipa,
                size_bytes: piece.spec.size_bytes,
                host_address: piece.host_address(),
                read_only: piece.spec.read_only,
                name: piece.name(),
            })
            .collect();
        given.sort_unstable_by_key(|given| given.ia);
        given
    }

    /// Takes the memory slot that has `ipa` away from the guest.
    fn forget(&mut self, ipa: u64) -> Result<()> {
        let found = (0..).zip(&self.memory).find(|(_, piece)| piece.host_address_of(ipa).is_some());
        let (slot, piece) = found.context("checked by the caller")?;
        let gone = kvm_userspace_memory_region { slot, memory_size: 0, ..Default::default() };
        // SAFETY: Nothing is given: KVM only lets go of what it had.
        unsafe { self.fd.set_user_memory_region(gone) }.with_context(|| format!("taking away memory slot {slot}"))?;
        let (first, end) = (piece.spec.ipa, piece.spec.ipa + piece.spec.size_bytes);
        self.forgotten.insert(slot);
        self.leaves.0.retain(|ia, _| !(first..end).contains(ia));
        Ok(())
    }

    fn piece_of(&self, ipa: u64) -> Option<&HostMemory> {
        self.memory.iter().find(|piece| piece.host_address_of(ipa).is_some())
    }

    fn host_address_of(&self, ipa: u64) -> Option<u64> {
        self.piece_of(ipa)?.host_address_of(ipa)
    }

    fn poison(&mut self, pages: &[u64]) -> Result<()> {
        if !Flavor::look()?.poisons() {
            return Ok(());
        }
        for &page in pages {
            kernel_read(self.host_address_of(page).context("checked by the caller")?)?;
            if let Some(entry) = self.leaves.get_mut(page).filter(|entry| entry.state == State::Owned) {
                *entry = Entry::invalid(State::Poisoned);
            }
        }
        Ok(())
    }

    /// Gives pages of `thp` or other memory back to the host, has it make them ready, or says in which size they come again.
    fn advise(&mut self, ipa: u64, pages: &[u64], step: &Step) -> Result<()> {
        let advice = match step.verb {
            Verb::Large => Advice::LinuxHugepage,
            Verb::Small => Advice::LinuxNoHugepage,
            Verb::Populate => Advice::LinuxPopulateWrite,
            _ => Advice::LinuxDontNeed,
        };
        let piece = self.piece_of(ipa).context("checked by the caller")?;
        let is_for_any = matches!(step.verb, Verb::Drop | Verb::Populate);
        ensure!(is_for_any || piece.spec.backing == Backing::Transparent, "not thp memory: {step:?}");
        // In one piece where they are one: what is one page to the host goes as one.
        if step.stride == 1 {
            piece.advise(ipa, step.pages * page_bytes(), advice)?;
        } else {
            pages.iter().try_for_each(|&page| piece.advise(page, page_bytes(), advice))?;
        }
        for &page in pages {
            let block = page / block_bytes() * block_bytes();
            match step.verb {
                Verb::Large => drop(self.large.insert(block)),
                Verb::Small => drop(self.large.remove(&block)),
                Verb::Populate => {}
                _ => self.leaves.remove(page),
            }
        }
        Ok(())
    }

    /// Runs a vCPU until it has obeyed; returns how many hypercalls were refused.
    fn order(&mut self, verb: u64, address: u64, step: &Step) -> Result<u64> {
        let count = self.vcpus.len();
        let vcpu = self.vcpus.get_mut(step.vcpu).with_context(|| format!("vCPU {} of {count}", step.vcpu))?;
        self.ran = true;
        // The guest may still be in its closing store, so an order begins at its first load of the verb.
        let mut given = false;
        loop {
            match vcpu.run() {
                Ok(VcpuExit::MmioRead(guest::PORT_VERB, data)) => {
                    given = true;
                    answer(data, verb)?;
                }
                Ok(VcpuExit::MmioRead(guest::PORT_ADDRESS, data)) => answer(data, address)?,
                Ok(VcpuExit::MmioRead(guest::PORT_PAGES, data)) => answer(data, step.pages)?,
                Ok(VcpuExit::MmioRead(guest::PORT_STRIDE, data)) => answer(data, step.stride * page_bytes())?,
                Ok(VcpuExit::MmioWrite(guest::PORT_REFUSED, data)) if given => {
                    let refused = u64::from_le_bytes(data.try_into().context("a short store to the port")?);
                    self.note_code();
                    return Ok(refused);
                }
                // A store to a read-only slot: dropped, as by a ROM.
                Ok(VcpuExit::MmioWrite(at, _)) if at >= guest::CODE_IPA => {}
                Ok(exit) => bail!("the guest stopped with {exit:?}"),
                Err(error) if matches!(error.errno(), 4 | 11) => {} // EINTR, EAGAIN
                Err(error) => bail!("KVM_RUN: {error} ({step:x?} at {address:#x})"),
            }
        }
    }

    /// The guest's own page: executed, and stored to by nobody after it ran.
    fn note_code(&mut self) {
        let state = if self.protected { State::Owned } else { State::SharedBorrowed };
        let code = Entry { level: 3, read: true, write: true, execute: true, state, oa: None };
        self.leaves.0.entry(guest::CODE_IPA).or_insert(code);
    }

    fn note(&mut self, page: u64, verb: Verb) {
        let Some(piece) = self.piece_of(page) else { return };
        let is_large = piece.spec.backing.is_huge() || self.large.contains(&(page / block_bytes() * block_bytes()));
        let is_block = is_large && (!self.protected || self.protected_blocks);
        let (level, size) = if is_block { (2, block_bytes()) } else { (3, page_bytes()) };
        let read_only = piece.spec.read_only;
        if read_only && verb == Verb::Touch {
            return;
        }
        let device = matches!(piece.spec.backing, Backing::Device(_));
        let fresh = match self.protected {
            true => Entry { level, read: true, write: true, execute: true, state: State::Owned, oa: None },
            // Without a store the page is the host's zero page, or somebody else's file page: the guest may not write.
            // KVM gives execution on demand, or at once if the instruction cache needs no care (CTR_EL0.DIC). Devices
            // are written to or not as the host's mapping says, and never executed.
            false => Entry {
                level,
                read: true,
                write: device && !read_only,
                execute: !device && instruction_cache_is_coherent(),
                state: State::SharedBorrowed,
                oa: None,
            },
        };
        if matches!(verb, Verb::Share | Verb::TouchShare | Verb::Unshare) {
            self.leaves.split(page);
        }
        let entry = match self.leaves.get_mut(page) {
            Some(entry) => entry,
            None => self.leaves.0.entry(page / size * size).or_insert(fresh),
        };
        match verb {
            Verb::Touch => entry.write = true,
            Verb::Call => (entry.write, entry.execute) = (true, true),
            Verb::Share | Verb::TouchShare => entry.state = State::SharedOwned,
            Verb::Unshare => entry.state = State::Owned,
            Verb::Read | Verb::Guard | Verb::Poison | Verb::Drop | Verb::Populate => {}
            Verb::Large | Verb::Small | Verb::Forget => {}
        }
    }
}

fn answer(data: &mut [u8], value: u64) -> Result<()> {
    data.copy_from_slice(value.to_le_bytes().get(..data.len()).context("a load of more than 8 bytes")?);
    Ok(())
}

fn new_vcpu(vm: &VmFd, index: usize) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(index as u64).with_context(|| format!("making vCPU {index}"))?;
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).context("KVM_ARM_PREFERRED_TARGET")?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    vcpu.vcpu_init(&init).with_context(|| format!("initializing vCPU {index}"))?;
    vcpu.set_one_reg(REGISTER_PC, &guest::CODE_IPA.to_le_bytes()).context("setting the program counter")?;
    Ok(vcpu)
}

fn new_gic(vm: &VmFd) -> Result<kvm_ioctls::DeviceFd> {
    let mut device = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, fd: 0, flags: 0 };
    let gic = vm.create_device(&mut device)?;
    let address = |kind: u32, ipa: &u64| kvm_device_attr {
        group: KVM_DEV_ARM_VGIC_GRP_ADDR,
        attr: u64::from(kind),
        addr: core::ptr::from_ref(ipa).addr() as u64,
        flags: 0,
    };
    gic.set_device_attr(&address(KVM_VGIC_V3_ADDR_TYPE_DIST, &GIC_DIST_IPA))?;
    gic.set_device_attr(&address(KVM_VGIC_V3_ADDR_TYPE_REDIST, &GIC_REDIST_IPA))?;
    let init = kvm_device_attr {
        group: KVM_DEV_ARM_VGIC_GRP_CTRL,
        attr: u64::from(KVM_DEV_ARM_VGIC_CTRL_INIT),
        addr: 0,
        flags: 0,
    };
    gic.set_device_attr(&init)?;
    Ok(gic)
}

/// Returns CTR_EL0.DIC: with it KVM maps all of an ordinary guest's memory executable.
fn instruction_cache_is_coherent() -> bool {
    const DIC: u64 = 1 << 29;
    let ctr: u64;
    // SAFETY: Linux lets EL0 read CTR_EL0 (or emulates it); nothing else changes.
    unsafe { core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    ctr & DIC != 0
}
