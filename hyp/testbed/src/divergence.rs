// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! Where QEMU 10 does not do what the architecture says: the whole list, each with a name and the reason.
//!
//! How each changes an answer is in [`prediction`](crate::prediction). A case that falls into one of these expects QEMU's
//! answer, and when the architecture's comes back the divergence is gone: the run fails, so that it is removed. It also fails
//! when no case falls into one on a CPU that has it. Those with `is_choice` are none: the architecture leaves the answer
//! open, and the list says which one is expected.

use crate::cpu::{Cpu, Stage};
use s2dump_vmsa::Granule;

/// A divergence. The order is that of [`LIST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// High address bits.
    HighBits,
    /// T0SZ and PAMax.
    T0szBelowPaMax,
    /// Bits of a base below 64 bytes.
    SmallRoot,
    /// Bits of a block below its size.
    BlockRes0,
    /// FWB and Device.
    FwbDevice,
    /// HPD without its feature.
    HpdAlways,
    /// Dirty state.
    AtWritesDirty,
    /// AT and stage-2 permissions.
    AtPermissionAborts,
    /// AT and the access flag.
    AtSetsAf,
    /// TG0.
    Granule,
    /// MemAttr.
    ReservedMemAttr,
    /// SH.
    ReservedShareability,
    /// Base register.
    LowBaseBits,
    /// Contiguous and nT.
    ContiguousNt,
}

/// What is known of a divergence.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name, as printed.
    pub name: &'static str,
    /// What the architecture says.
    pub architecture: &'static str,
    /// What QEMU does.
    pub qemu: &'static str,
    /// The architecture leaves it open.
    pub is_choice: bool,
    /// Returns whether the cases must meet it on this CPU.
    pub is_met_on: fn(&Cpu) -> bool,
}

const ALL: fn(&Cpu) -> bool = |_| true;
/// With fewer address bits there are none above them to be dropped, nor blocks larger than the output size.
const HAS_52: fn(&Cpu) -> bool = |cpu| cpu.pa_bits() == 52;

/// All of them.
pub const LIST: [Known; 14] = [
    Known {
        name: "high-bits",
        architecture: "address bits 51:48 (64K) or 51:50 (LPA2), in a descriptor or a base, are an address size \
                       fault when the output size is 48 bits or less",
        qemu: "drops them",
        is_choice: false,
        is_met_on: HAS_52,
    },
    Known {
        name: "t0sz-below-pamax",
        architecture: "T0SZ for more stage-2 input bits than the CPU has physical address bits: translation fault, \
                       level 0; before FEAT_LPA, and only then, it may also be taken for the T0SZ of that many bits",
        qemu: "walks as written, which is neither",
        is_choice: false,
        is_met_on: |cpu| cpu.pa_bits() < 48,
    },
    Known {
        name: "small-root",
        architecture: "in the 52-bit form of a base register, bits 5:2 are address bits 51:48 and bits 5:0 of the \
                       address are 0",
        qemu: "takes bits 5:4 as bits 5:4 too, when the root is less than 64 bytes",
        is_choice: false,
        is_met_on: HAS_52,
    },
    Known {
        name: "block-res0",
        architecture: "address bits of a block descriptor below the block's size are RES0: no part of its address",
        qemu: "counts them when it compares the address with the output size, if that is smaller than the block",
        is_choice: false,
        is_met_on: HAS_52,
    },
    Known {
        name: "fwb-device",
        architecture: "with FWB, Device at both stages gives the stricter subtype",
        qemu: "takes stage 2's",
        is_choice: false,
        is_met_on: Cpu::has_fwb,
    },
    Known {
        name: "hpd-always",
        architecture: "TCR_EL2.HPD is RES0 without FEAT_HPDS: table attributes count",
        qemu: "takes HPD on any CPU",
        is_choice: false,
        is_met_on: |cpu| !cpu.features(Stage::One, Granule::Size4K, false).hpds,
    },
    Known {
        name: "at-writes-dirty",
        architecture: "AT makes no page writable: no dirty state update",
        qemu: "sets S2AP[1] of a leaf with DBM when HA and HD are set",
        is_choice: false,
        is_met_on: |cpu| cpu.features(Stage::Two, Granule::Size4K, false).hd,
    },
    Known {
        name: "at-permission-aborts",
        architecture: "AT S12E1* of what stage 2 does not permit leaves the fault in PAR_EL1",
        qemu: "ends, by an assertion of its own; so AT is not asked, but `accesses` tries the same rights",
        is_choice: false,
        // By a boot of its own: nothing comes after it.
        is_met_on: |_| false,
    },
    Known {
        name: "at-sets-af",
        architecture: "with HA, AT may or may not set AF of what it finds",
        qemu: "sets it",
        is_choice: true,
        is_met_on: |cpu| cpu.features(Stage::Two, Granule::Size4K, false).ha,
    },
    Known {
        name: "granule",
        architecture: "TG0 that is reserved or not implemented: as some size that is implemented",
        qemu: "4K",
        is_choice: true,
        is_met_on: ALL,
    },
    Known {
        name: "reserved-memattr",
        architecture: "a reserved MemAttr may be any type",
        qemu: "with FWB Device-nGnRnE, else a reserved half is write-back",
        is_choice: true,
        is_met_on: ALL,
    },
    Known {
        name: "reserved-shareability",
        architecture: "SH = 01 is reserved, so may be any",
        qemu: "non-shareable at stage 2, 01 as it stands at EL2",
        is_choice: true,
        is_met_on: ALL,
    },
    Known {
        name: "low-base-bits",
        architecture: "bits of a base register below the root's alignment: as 0, or part of the index",
        qemu: "as 0",
        is_choice: true,
        is_met_on: ALL,
    },
    Known {
        name: "contiguous-nt",
        architecture: "Contiguous where the neighbors form no run: as one of them says, or a fault; nT of a block: as \
                       the block says, or a translation fault",
        qemu: "the entry as it stands",
        is_choice: true,
        is_met_on: ALL,
    },
];

impl Divergence {
    /// Returns what is known of it.
    #[must_use]
    pub const fn known(self) -> &'static Known {
        &LIST[self as usize]
    }
}
