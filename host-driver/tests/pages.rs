// SPDX-License-Identifier: GPL-2.0-only
//! Kernels with other pages than 4 KiB: what the driver says of its ring, to user space and to EL2.

use s2dump_abi::hypercall::{slot_pages, DumpFlags};
use s2dump_abi::ioctl::Hello;
use s2dump_abi::slot::{Fact, SlotHeader, SLOT_BYTES};
use s2dump_abi::target::Target;
use s2dump_abi::version::ABI_VERSION;
use s2dump_host_driver::call::Call;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::facts::put;
use s2dump_host_driver::host::{El2, Host, HostVm};
use s2dump_host_driver::session::Session;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const PFN: u64 = 0x1_2340;

/// A kernel whose EL2 says OK to everything.
struct Kernel<const PAGE: usize> {
    /// The only slot that is written.
    slot: [u8; SLOT_BYTES],
    /// Of the last call.
    registers: [u64; 8],
}

impl<const PAGE: usize> Kernel<PAGE> {
    fn new() -> Self {
        Self { slot: [0; SLOT_BYTES], registers: [0; 8] }
    }
}

impl<const PAGE: usize> El2 for Kernel<PAGE> {
    fn call(&mut self, regs: &mut [u64; 8]) {
        self.registers = *regs;
        regs[..4].copy_from_slice(&[0, 0, ABI_VERSION.to_bits().into(), 0]);
    }
}

impl<const PAGE: usize> Host for Kernel<PAGE> {
    const PAGE_BYTES: usize = PAGE;

    fn check_allowed(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn slot_pfn(&self, slot: u32) -> u64 {
        // Slots are where the kernel found pages: not behind each other.
        PFN + u64::from(slot) * 100
    }

    fn hyp_image(&self) -> [[u64; 2]; 3] {
        [[0; 2]; 3]
    }

    fn share_further_pages(&mut self, _: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn read_slot(&self, _: u32, offset: usize, into: &mut [u8]) -> Result<(), Errno> {
        into.copy_from_slice(self.slot.get(offset..offset + into.len()).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn write_slot(&mut self, _: u32, offset: usize, from: &[u8]) -> Result<(), Errno> {
        self.slot.get_mut(offset..offset + from.len()).ok_or(Errno::EINVAL)?.copy_from_slice(from);
        Ok(())
    }

    fn look_at_vms(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn look_at_handles(&mut self) {}

    fn vms(&self) -> &[HostVm] {
        &[]
    }

    fn hold_vm(&mut self, _: u16) -> Result<Option<HostVm>, Errno> {
        Ok(None)
    }

    fn put_memory_slots(&mut self, _: u32, _: usize, _: u64, _: usize) -> Result<usize, Errno> {
        Ok(0)
    }

    fn let_vms_go(&mut self) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}

/// With pages of `PAGE` bytes a slot has `bytes`, which are `pages` pages.
fn assert_slots_have<const PAGE: usize>(bytes: u32, pages: u32) {
    let mut kernel = Kernel::<PAGE>::new();
    let size = size_of::<Hello>() as u32;
    let mut hello = Hello { size, version: ABI_VERSION.to_bits(), ..Hello::new_zeroed() };
    Session::new(8).hello(&mut kernel, &mut hello).expect("hello");
    assert_eq!((hello.slots, hello.slot_bytes, hello.page_bytes), (8, bytes, PAGE as u32));

    let mut slot_of = |flags| {
        let dump = Call::Dump { flags, target: Target::HOST, cursor: 0, end: 1 << 30, budget: 0 };
        dump.make(&mut kernel, 3, 0).expect("a dump");
        kernel.registers[2]
    };
    let pfn = PFN + 300;
    assert_eq!(slot_of(DumpFlags::EXACT.union(DumpFlags::PACKED)), slot_pages(pfn, pages));
    assert_eq!(slot_of(DumpFlags::EXACT), pfn, "one page");

    // The last two of four slots, and what is in the kernel's image.
    assert_eq!(put(&mut kernel, 0, 2, 4), Ok(5));
    let records = kernel.slot[size_of::<SlotHeader>()..].chunks(size_of::<Fact>());
    let facts: Vec<Fact> = records.take(2).map(|bytes| Fact::read_from_bytes(bytes).expect("a fact")).collect();
    let told: Vec<_> = facts.iter().map(|fact| (fact.start, fact.size)).collect();
    let start = |slot: u64| (PFN + slot * 100) * PAGE as u64;
    assert_eq!(told, [(start(2), u64::from(bytes)), (start(3), u64::from(bytes))]);
    assert!(facts.iter().all(|fact| fact.as_bytes()[16..24] == [0; 8]));
}

#[test]
fn good_slots_are_whole_pages() {
    assert_slots_have::<4096>(16384, 4);
    assert_slots_have::<16384>(16384, 1);
    assert_slots_have::<65536>(65536, 1);
}
