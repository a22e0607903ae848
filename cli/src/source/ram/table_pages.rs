// SPDX-License-Identifier: MIT OR Apache-2.0
//! TablePages read from banks of memory, for the walker.
//!
//! Words are little-endian; tables of a big-endian EL2 (SCTLR_EL2.EE) are not supported.
//!
//! Invariant: no more than [`TablePages::budget`] pages and those of one call are kept, so memory is bounded whatever the
//! tables say.

use super::banks::Banks;
use s2dump_hyp::table_memory::{OutsideMemory, TableMemory};
use s2dump_vmsa::{Granule, PhysAddr};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;

/// A table page as it was read.
type Page = Box<[AtomicU64]>;

/// Table pages, read when they are first asked for.
pub(crate) struct TablePages {
    banks: Banks,
    pages: Vec<OnceCell<Page>>,
    /// Which page is in which cell.
    places: RefCell<BTreeMap<PhysAddr, usize>>,
    budget: u32,
    error: Cell<Option<io::Error>>,
}

/// How many bytes of table pages are kept. The tables above a million leaves need a fraction of it.
const KEPT_BYTES: u32 = 8 << 20;

impl TablePages {
    /// Reads tables of `granule` from `banks`.
    pub(crate) fn new(banks: Banks, granule: Granule) -> Self {
        let budget = KEPT_BYTES >> granule.page_shift();
        // A walk reads at least one descriptor of each table it enters, and begins with the root.
        let most = 2 * budget as usize + 1;
        let pages = std::iter::repeat_with(OnceCell::new).take(most).collect();
        Self { banks, pages, places: RefCell::default(), budget, error: Cell::new(None) }
    }

    /// Returns how many descriptors a walk may read before [`Self::make_room`] is due.
    pub(crate) fn budget(&self) -> u32 {
        self.budget
    }

    /// Forgets all pages, unless there is room for those of another walk.
    pub(crate) fn make_room(&mut self) {
        if self.places.get_mut().len() > self.budget as usize {
            self.places.get_mut().clear();
            self.pages.iter_mut().for_each(|page| drop(page.take()));
        }
    }

    /// Returns the memory there is.
    pub(crate) fn banks(&self) -> &Banks {
        &self.banks
    }

    /// Returns why memory that is there could not be read, the last time that happened.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.error.take()
    }

    fn read(&self, table: PhysAddr, granule: Granule) -> Option<Page> {
        let mut bytes = vec![0; 1 << granule.page_shift()];
        match self.banks.read(table.get(), &mut bytes) {
            Ok(true) => {
                let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
                Some(bytes.chunks_exact(8).map(|bytes| AtomicU64::new(word(bytes))).collect())
            }
            Ok(false) => None,
            Err(error) => {
                self.error.set(Some(error));
                None
            }
        }
    }
}

impl TableMemory for TablePages {
    fn table(&self, table: PhysAddr, granule: Granule) -> Result<&[AtomicU64], OutsideMemory> {
        let outside = OutsideMemory { table };
        let mut places = self.places.borrow_mut();
        let next = places.len();
        let place = *places.entry(table).or_insert(next);
        let cell = self.pages.get(place).ok_or(outside)?;
        if let Some(page) = cell.get() {
            return Ok(page);
        }
        match self.read(table, granule) {
            Some(page) => Ok(cell.get_or_init(|| page)),
            None => {
                places.remove(&table);
                Err(outside)
            }
        }
    }
}
