// SPDX-License-Identifier: MIT OR Apache-2.0
//! One slot: bytes to a checked header and records. Trusts no length, count or version.

use s2dump_abi::slot::{
    Fact, FrameRecord, MemorySlot, Record, SlotHeader, SlotKind, VmRecord, MAX_SLOT_BYTES, PLAIN_SLOT_BYTES, SLOT_MAGIC,
};
use s2dump_abi::target::Target;
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header of this version.
pub(crate) const HEADER_BYTES: usize = size_of::<SlotHeader>();

/// Why bytes are not a slot this version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotFault {
    /// Fewer bytes than a header.
    #[error("{0} bytes are too few for a slot header")]
    Short(usize),
    /// The magic number is missing.
    #[error("no slot begins here (found {0:#010x})")]
    NoMagic(u32),
    /// Written by another major version.
    #[error("written in format {}.{}, this s2dump reads 1.x to {}.x", .0.major, .0.minor, ABI_VERSION.major)]
    Version(AbiVersion),
    /// Header or records are larger than a slot, or the header is too small.
    #[error("a header of {header_bytes} bytes and {record_count} records of {record_bytes} bytes are not a slot")]
    Lengths {
        /// Bytes of the header, as it says.
        header_bytes: u16,
        /// Bytes of a record, as it says.
        record_bytes: u16,
        /// Records, as it says.
        record_count: u32,
    },
    /// The records of a known kind are smaller than this version's.
    #[error("records of {0} bytes are too small for a slot of kind {1}")]
    RecordBytes(u16, u16),
    /// The slot ends before the last record.
    #[error("cut off: {have} of {used} bytes")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes the header says.
        used: usize,
    },
}

/// Checks the first bytes of a slot and returns its header and how many bytes it has in all.
pub(crate) fn measure(bytes: &[u8]) -> Result<(SlotHeader, usize), SlotFault> {
    let (header, _) = SlotHeader::read_from_prefix(bytes).map_err(|_| SlotFault::Short(bytes.len()))?;
    if header.magic != SLOT_MAGIC {
        return Err(SlotFault::NoMagic(header.magic));
    }
    let version = AbiVersion::from_bits(header.version);
    if !ABI_VERSION.can_read(version) {
        return Err(SlotFault::Version(version));
    }
    let SlotHeader { header_bytes, record_bytes, record_count, .. } = header;
    let used = header.used_bytes().ok_or(SlotFault::Lengths { header_bytes, record_bytes, record_count })?;
    Ok((header, used))
}

/// The records of a slot, by kind.
pub(crate) enum Records<'a> {
    /// Of RANGES, WALK and EXAMINE slots.
    Runs(RecordIter<'a, Record>),
    /// The words of PACKED slots.
    Packed(RecordIter<'a, u64>),
    /// Of VMS slots.
    Vms(RecordIter<'a, VmRecord>),
    /// Of FRAMES slots.
    Frames(RecordIter<'a, FrameRecord>),
    /// Of FACTS slots.
    Facts(RecordIter<'a, Fact>),
    /// Of MEMORY slots.
    Memory(RecordIter<'a, MemorySlot>),
    /// Of ORIGIN slots: text.
    Origin(&'a [u8]),
    /// Of NAMES slots: text.
    Names(&'a [u8]),
    /// END slots have none.
    None,
    /// The slot is of a kind this version does not know.
    Unknown,
}

/// A slot whose header was checked.
pub(crate) struct Slot<'a> {
    /// The header.
    pub(crate) header: SlotHeader,
    /// Its records, as far as they are there.
    pub(crate) records: Records<'a>,
    /// The slot is cut off: records at its end are missing.
    pub(crate) cut_off: Option<SlotFault>,
}

/// Checks a whole slot, or the beginning of one.
pub(crate) fn parse(bytes: &[u8]) -> Result<Slot<'_>, SlotFault> {
    let (header, used) = measure(bytes)?;
    let have = bytes.len();
    let body = bytes.get(usize::from(header.header_bytes)..used.min(have)).unwrap_or_default();
    let records = match SlotKind(header.kind) {
        SlotKind::RANGES | SlotKind::WALK | SlotKind::EXAMINE => Records::Runs(RecordIter::try_new(body, &header)?),
        SlotKind::PACKED => Records::Packed(RecordIter::try_new(body, &header)?),
        SlotKind::VMS => Records::Vms(RecordIter::try_new(body, &header)?),
        SlotKind::FRAMES => Records::Frames(RecordIter::try_new(body, &header)?),
        SlotKind::FACTS => Records::Facts(RecordIter::try_new(body, &header)?),
        SlotKind::MEMORY => Records::Memory(RecordIter::try_new(body, &header)?),
        SlotKind::ORIGIN => Records::Origin(body),
        SlotKind::NAMES => Records::Names(body),
        SlotKind::END => Records::None,
        _ => Records::Unknown,
    };
    let cut_off = (have < used).then_some(SlotFault::Truncated { have, used });
    Ok(Slot { header, records, cut_off })
}

/// So much text fits a plain slot.
pub(crate) const MOST_TEXT: usize = PLAIN_SLOT_BYTES - HEADER_BYTES;

/// Returns a slot of text, of which no more is taken than fits.
pub(crate) fn text_slot(kind: SlotKind, target: Target, sequence: u64, text: &[u8]) -> Vec<u8> {
    let mut text = text.get(..MOST_TEXT).unwrap_or(text).to_vec();
    // The slots that follow begin where 64-bit words do, as all do.
    text.resize(text.len().next_multiple_of(8), b'\n');
    let record_count = text.len() as u32;
    let header = SlotHeader { record_bytes: 1, record_count, target: target.0, sequence, ..SlotHeader::new(kind) };
    [header.as_bytes(), text.as_slice()].concat()
}

/// Copies records out one by one. A newer minor version may have appended fields to them, which are skipped.
pub(crate) struct RecordIter<'a, T> {
    chunks: std::slice::ChunksExact<'a, u8>,
    of: std::marker::PhantomData<T>,
}

impl<'a, T> RecordIter<'a, T> {
    fn try_new(body: &'a [u8], header: &SlotHeader) -> Result<Self, SlotFault> {
        let record_bytes = usize::from(header.record_bytes);
        if header.record_count > 0 && record_bytes < size_of::<T>() {
            return Err(SlotFault::RecordBytes(header.record_bytes, header.kind));
        }
        // Without records their size does not matter, but `chunks_exact` panics at zero.
        Ok(Self { chunks: body.chunks_exact(record_bytes.max(1)), of: std::marker::PhantomData })
    }
}

impl<T: FromBytes + KnownLayout + Immutable> Iterator for RecordIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        T::read_from_prefix(self.chunks.next()?).ok().map(|(record, _)| record)
    }
}

/// A buffer for one slot, of any size.
pub(crate) type SlotBuffer = [u8; MAX_SLOT_BYTES];

/// Returns a buffer for one slot.
pub(crate) fn new_buffer() -> Box<SlotBuffer> {
    Box::new([0; MAX_SLOT_BYTES])
}
