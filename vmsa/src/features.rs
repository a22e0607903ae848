// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! What decoding depends on and no register of a table says: the CPU's features.

use crate::bits;

/// Features of the CPU that walks a table. A register field whose feature is absent is taken as zero, which is what the
/// architecture does with it.
///
/// There is none for bits of a descriptor that mean one thing or, without their feature, nothing: FnXS (FEAT_XS), nT
/// (FEAT_BBM), GP (FEAT_BTI), DBM. They are shown by their names wherever they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Physical address bits the CPU has (ID_AA64MMFR0_EL1.PARange): 32 to 52. 52 implies FEAT_LPA.
    pub pa_max_bits: u8,
    /// FEAT_LPA2 for the granule and the stage: DS counts.
    pub lpa2: bool,
    /// FEAT_LVA: EL2's stage 1 may have 52 input bits with 64 KiB pages. Of no meaning at stage 2.
    pub lva: bool,
    /// FEAT_TTST: T0SZ may be as large as 48.
    pub ttst: bool,
    /// HCR_EL2.FWB: MemAttr has the FWB encoding.
    pub fwb: bool,
    /// FEAT_XNX: XN is two bits.
    pub xnx: bool,
    /// FEAT_MTE_PERM: MemAttr can deny access to allocation tags.
    pub mte_perm: bool,
    /// FEAT_HAFDBS: hardware can set the access flag (HA).
    pub ha: bool,
    /// FEAT_HAFDBS: hardware can also manage dirty state (HD).
    pub hd: bool,
    /// FEAT_HPDS: HPD of TCR_EL2 counts.
    pub hpds: bool,
    /// FEAT_HPDS2: HWU59 to HWU62 count, which make PBHA of bits 62:59.
    pub hpds2: bool,
    /// FEAT_S2PIE: VTCR_EL2.S2PIE counts.
    pub s2pie: bool,
    /// FEAT_S2POE: VTCR_EL2.S2POE counts.
    pub s2poe: bool,
    /// FEAT_THE: VTCR_EL2.AssuredOnly counts.
    pub the: bool,
    /// TCR2_EL2.AIE: AttrIndx of EL2's stage 1 is four bits.
    pub aie: bool,
}

impl Features {
    /// None of them, with 48 address bits.
    pub const NONE: Self = Self {
        pa_max_bits: 48,
        lpa2: false,
        lva: false,
        ttst: false,
        fwb: false,
        xnx: false,
        mte_perm: false,
        ha: false,
        hd: false,
        hpds: false,
        hpds2: false,
        s2pie: false,
        s2poe: false,
        the: false,
        aie: false,
    };

    /// Returns the features for a table of KVM's with this VTCR_EL2, given those VTCR_EL2 does not imply: KVM sets PS to
    /// what the CPU has, a field only with its feature, and no T0SZ that the CPU does not take (`kvm_get_vtcr`).
    #[must_use]
    pub const fn of_kvm(vtcr: u64, fwb: bool, xnx: bool) -> Self {
        Self {
            pa_max_bits: ps_bits(bits(vtcr, 18, 16)),
            lpa2: true,
            lva: true,
            ttst: true,
            fwb,
            xnx,
            mte_perm: false,
            ha: true,
            hd: true,
            hpds: true,
            hpds2: true,
            s2pie: true,
            s2poe: true,
            the: true,
            aie: false,
        }
    }
}

/// VTCR_EL2.PS, TCR_EL2.PS or IPS. 7 (56 bits) needs 128-bit descriptors and is reserved with others: as 6, the most they
/// can hold.
pub(crate) const fn ps_bits(ps: u64) -> u8 {
    match ps {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}
