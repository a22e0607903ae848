// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The only way from a physical address to a descriptor.

use core::sync::atomic::AtomicU64;
use s2dump_vmsa::geometry::BaseBeyondOutput;
use s2dump_vmsa::{Geometry, Granule, PhysAddr};

/// Memory that tables may be read from.
///
/// Checks once per table page, so that its entries are then as cheap as a slice. Entries are atomics because hardware
/// (access flag, dirty state) may write a live table: each is loaded once, relaxed, and the copy is decoded.
pub trait TableMemory {
    /// Returns the entries of the granule-sized, granule-aligned table page at `table`.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`] unless all of it is memory that may be read as a table.
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory>;
}

/// No table may be read at this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory {
    /// Where a table was said to be.
    pub table: PhysAddr,
}

/// A root table: its geometry and its base.
///
/// Holding one proves that the base is aligned to the size of the root.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    geometry: Geometry,
    base: PhysAddr,
}

/// The base is not aligned to the size of the root: the MMU's answer would be unpredictable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MisalignedRoot(pub PhysAddr);

impl Root {
    /// Checks `base`.
    ///
    /// # Errors
    ///
    /// [`MisalignedRoot`] unless `base` is a multiple of the size of the root.
    #[inline]
    pub const fn try_new(geometry: Geometry, base: PhysAddr) -> Result<Self, MisalignedRoot> {
        // INVARIANT: checked here.
        if base.get() & (geometry.root_bytes() - 1) != 0 {
            return Err(MisalignedRoot(base));
        }
        Ok(Self { geometry, base })
    }

    /// Takes the base that VTTBR_EL2 or TTBR0_EL2 with value `register` gives a table of `geometry`; bits that the MMU is
    /// expected to drop are dropped ([`Geometry::base`] tells them).
    ///
    /// # Errors
    ///
    /// [`BaseBeyondOutput`] if the output size of the table does not reach that far.
    pub const fn from_register(geometry: Geometry, register: u64) -> Result<Self, BaseBeyondOutput> {
        match geometry.base(register) {
            // INVARIANT: `Geometry::base` aligns.
            Ok(base) => Ok(Self { geometry, base: base.address }),
            Err(error) => Err(error),
        }
    }

    /// Returns the geometry.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns the address of the first entry.
    #[must_use]
    pub const fn base(&self) -> PhysAddr {
        self.base
    }

    /// Returns the entries of that granule-sized part of the root that `ia` falls into: all of it unless the root
    /// concatenates several. Never has entries behind the last of the root.
    #[inline(always)]
    pub(crate) fn entries<'m, M: TableMemory>(&self, memory: &'m M, ia: u64) -> Result<&'m [AtomicU64], OutsideMemory> {
        let granule = self.geometry.granule();
        let part = ia >> (granule.entry_shift(self.geometry.start_level()) + granule.index_bits());
        let first = self.base.wrapping_add(part << granule.page_shift());
        let page_mask = (1 << granule.page_shift()) - 1;
        let page = PhysAddr::new(first.get() & !page_mask);
        let entries = memory.table(page, granule)?;
        // A root smaller than a granule is aligned to its size, so it lies within the page.
        let skip = usize::try_from((first.get() & page_mask) >> 3).unwrap_or(usize::MAX);
        let index_bits = self.geometry.root_index_bits();
        let count = 1 << if index_bits < granule.index_bits() { index_bits } else { granule.index_bits() };
        entries.get(skip..).and_then(|rest| rest.get(..count)).ok_or(OutsideMemory { table: page })
    }

    /// Returns whether the table page at `table`, which is granule aligned, has entries of the root.
    #[inline(always)]
    pub(crate) fn contains(&self, table: PhysAddr) -> bool {
        let page_mask = (1 << self.geometry.granule().page_shift()) - 1;
        let first = self.base.get() & !page_mask;
        // Both are granule aligned, so this holds for a root of less than a granule too. A size and not a mask: the page
        // right behind the root is a table like any other.
        table.get() >= first && table.get() - first < self.geometry.root_bytes()
    }
}
