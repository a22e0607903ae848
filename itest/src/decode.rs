// SPDX-License-Identifier: MIT OR Apache-2.0
//! A second opinion on descriptors: ten lines that share nothing with the `vmsa` crate the program decodes with.
//!
//! Knows only what pKVM of Linux 7.2, 7.3 and android16-6.12 writes (`asm/kvm_pgtable.h`); anything else is an error, so a test that
//! meets it fails.

use crate::dump::entry_bytes;
use crate::expect::{Entry, LeafMap, State};
use anyhow::{bail, ensure, Context as _, Result};
use s2dump_abi::slot::{record_flags, Record, RecordKind};

const POISONED: u64 = 0x3000_0000_0000_0000;
/// Android's alone.
const MMIO_GUARD: u64 = 0x800;
const LOCKED_TYPE: u64 = 1;

/// Decodes one record: the first entry of its run, or `None` for a hole.
///
/// # Errors
///
/// For a descriptor pKVM never leaves in a guest's table.
pub fn entry(record: &Record) -> Result<Option<Entry>> {
    let (raw, level) = (record.descriptor, record.level);
    match RecordKind(record.kind) {
        RecordKind::INVALID => {
            ensure!(raw >> 60 != LOCKED_TYPE, "a LOCKED entry was seen: {record:x?}");
            let state = match raw {
                0 => return Ok(None),
                POISONED => State::Poisoned,
                MMIO_GUARD => State::MmioGuard,
                _ => bail!("an invalid entry pKVM never writes: {record:x?}"),
            };
            Ok(Some(Entry { level, ..Entry::invalid(state) }))
        }
        RecordKind::LEAF => {
            ensure!(raw & 1 == 1 && (level == 3) == (raw & 2 == 2), "not a leaf: {record:x?}");
            let state = match (raw >> 55) & 3 {
                0 => State::Owned,
                1 => State::SharedOwned,
                2 => State::SharedBorrowed,
                _ => bail!("a valid entry with state NOPAGE: {record:x?}"),
            };
            let bit = |n: u32| (raw >> n) & 1 == 1;
            // XN, 54:53: 0b00 is executable at EL1 and EL0; KVM sets 0b10 otherwise.
            let execute = (raw >> 53) & 3 == 0;
            Ok(Some(Entry { level, read: bit(6), write: bit(7), execute, state, oa: Some(record.oa) }))
        }
        kind => bail!("a record of kind {kind:?}: {record:x?}"),
    }
}

/// Unfolds records. Output addresses past the first of a run are known only if the run is linear.
///
/// # Errors
///
/// As [`entry`].
pub fn leaf_map(records: &[Record]) -> Result<LeafMap> {
    let mut leaves = LeafMap::default();
    for record in records {
        let Some(first) = entry(record)? else { continue };
        let size = entry_bytes(record.level).context("level")?;
        let linear = record.flags & record_flags::LINEAR != 0;
        for n in 0..u64::from(record.count) {
            let mut entry = first.at(n * size);
            entry.oa = entry.oa.filter(|_| linear || n == 0);
            leaves.0.insert(record.ia + n * size, entry);
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(descriptor: u64, kind: RecordKind, count: u32) -> Record {
        Record {
            ia: 0x8000_0000,
            oa: 0x409d_b000,
            descriptor,
            count,
            level: 3,
            kind: kind.0,
            flags: record_flags::LINEAR,
        }
    }

    #[test]
    fn leaves_seen_on_real_machines() {
        let protected = entry(&record(0x409d_b7ff, RecordKind::LEAF, 1)).unwrap().unwrap();
        assert_eq!(
            (protected.state, protected.read, protected.write, protected.execute),
            (State::Owned, true, true, true)
        );
        let ordinary = entry(&record(0x0140_0000_409e_27ff, RecordKind::LEAF, 1)).unwrap().unwrap();
        assert_eq!((ordinary.state, ordinary.write, ordinary.execute), (State::SharedBorrowed, true, false));
    }

    #[test]
    fn locked_and_unknown_are_errors() {
        assert!(entry(&record(1 << 60, RecordKind::INVALID, 1)).is_err());
        assert!(entry(&record(2 << 60, RecordKind::INVALID, 1)).is_err());
        assert!(entry(&record(0x0180_0000_409e_27ff, RecordKind::LEAF, 1)).is_err());
    }

    #[test]
    fn runs_unfold() {
        let t =
            leaf_map(&[record(0x409d_b7ff, RecordKind::LEAF, 3), record(POISONED, RecordKind::INVALID, 1)]).unwrap();
        assert_eq!(t.0.len(), 3);
        assert_eq!(t.0[&0x8000_2000].oa, Some(0x409d_d000));
    }
}
