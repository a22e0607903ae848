// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of memory with tables in them, and ELF cores, made word by word.

use super::{BLOCK, PAGE, POISONED, SHARED_BORROWED, SHARED_OWNED, XN};
use std::path::Path;

/// Memory from `base` on, with a stage-2 table in it: the root first, then tables as they are needed.
pub struct Image {
    /// First physical address.
    pub base: u64,
    /// Its words.
    pub words: Vec<u64>,
    /// Granule, as a shift.
    pub page_shift: u32,
    /// Level of the root.
    pub start_level: i8,
}

impl Image {
    /// Makes memory with an empty root of `root_pages`.
    pub fn new(base: u64, page_shift: u32, start_level: i8, root_pages: usize) -> Self {
        Self { base, words: vec![0; root_pages << (page_shift - 3)], page_shift, start_level }
    }

    /// What an entry of `level` spans, as a shift.
    pub fn shift(&self, level: i8) -> u32 {
        self.page_shift + (self.page_shift - 3) * (3 - level) as u32
    }

    /// Writes the entry of `level` that spans `ia`, and tables above it where there are none in this memory.
    pub fn set(&mut self, ia: u64, level: i8, raw: u64) {
        let per_page = 1 << (self.page_shift - 3);
        let mut index = (ia >> self.shift(self.start_level)) as usize;
        for above in self.start_level..level {
            let next = self.words[index] & 0xffff_ffff_ffff & (u64::MAX << self.page_shift);
            let mut table = (next.wrapping_sub(self.base) / 8) as usize;
            if self.words[index] & 3 != 3 || table >= self.words.len() {
                table = self.words.len();
                self.words[index] = (self.base + 8 * table as u64) | 3;
                self.words.resize(table + per_page, 0);
            }
            index = table + (ia >> self.shift(above + 1)) as usize % per_page;
        }
        self.words[index] = raw;
    }

    /// Maps `count` entries of `level` from `ia` on to memory from `oa` on.
    pub fn map(&mut self, ia: u64, level: i8, count: u64, oa: u64, attributes: u64) {
        let shift = self.shift(level);
        (0..count).for_each(|n| self.set(ia + (n << shift), level, (oa + (n << shift)) | attributes));
    }

    /// The bytes of memory.
    pub fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Where the images of the golden tests begin.
pub const RAM: u64 = 0x4000_0000;

/// A table for [`super::VTCR_40`] with much in it, and all of it there.
pub fn whole() -> Image {
    let mut image = Image::new(RAM, 12, 1, 2);
    image.map(0x0900_0000, 3, 1, 0x0900_0000, PAGE & !(0xf << 2) | 1 << 2 | XN | SHARED_BORROWED);
    image.map(0x8000_0000, 2, 4, 0x6000_0000, BLOCK);
    image.map(0x8080_0000, 3, 8, 0x5000_0000, PAGE);
    image.map(0x8080_8000, 3, 8, 0x7000_0000, PAGE);
    image.map(0x8081_0000, 3, 16, 0x5101_0000, PAGE | SHARED_OWNED | 1 << 52);
    image.set(0x8082_0000, 3, POISONED);
    image.map(0xff_ffff_f000, 3, 1, 0x5200_0000, PAGE);
    image
}

/// The same table as Android's pKVM would have it: an MMIO guard in place of poison.
pub fn android() -> Image {
    let mut image = whole();
    image.set(0x8082_0000, 3, super::android::MMIO_GUARD);
    image
}

/// Pages whose bit 53 counts only on a CPU with FEAT_XNX: with it EL0 alone executes some, and EL1 alone others.
pub fn two_bit_xn() -> Image {
    let mut image = Image::new(RAM, 12, 1, 1);
    image.map(0x8000_0000, 3, 4, 0x5000_0000, PAGE | 1 << 53);
    image.map(0x8000_4000, 3, 4, 0x5000_4000, PAGE);
    image.map(0x8000_8000, 3, 4, 0x5000_8000, PAGE | 3 << 53);
    image
}

/// A page of something else where a root is expected: addresses of the kernel, and zeroes.
pub fn no_table() -> Image {
    let mut image = Image::new(RAM, 12, 1, 1);
    (0..149).for_each(|n| image.words[n * 3] = 0xffff_8000_8123_0000 + 0x40 * n as u64);
    image
}

/// The same with tables that lead out of memory, beyond the output size and back to the root, and a reserved entry.
pub fn holed() -> Image {
    let mut image = whole();
    image.set(0xc000_0000, 1, 0x4800_0003);
    image.set(0xc000_0000 + (1 << 30), 1, 0x4800_1003);
    image.set(0x1_8000_0000, 1, 1 << 41 | 3);
    image.set(0x1_c000_0000, 1, RAM | 3);
    image.set(0x8083_0000, 3, 0x5000_0001);
    image
}

/// Runs of contiguous entries: whole, misaligned in output, cut short, of two kinds, and scattered.
pub fn contiguous() -> Image {
    let mut image = Image::new(RAM, 12, 1, 2);
    let contiguous = PAGE | 1 << 52;
    image.map(0x8000_0000, 3, 32, 0x5000_0000, contiguous);
    image.map(0x8004_0000, 3, 16, 0x5001_1000, contiguous);
    image.map(0x8006_0000, 3, 15, 0x5006_0000, contiguous);
    image.map(0x8008_0000, 3, 8, 0x5008_0000, contiguous);
    image.map(0x8008_8000, 3, 8, 0x5008_8000, contiguous & !(1 << 7));
    image.map(0x800a_0000, 3, 8, 0x500a_0000, contiguous);
    image.map(0x800a_8000, 3, 8, 0x500c_8000, contiguous);
    image.map(0x8100_0000, 2, 16, 0x6000_0000, BLOCK | 1 << 52);
    image.map(0x8120_0000, 2, 1, 0x6020_0000, BLOCK | 1 << 52 | 1 << 16 | 1 << 11 | 5 << 59 | 1 << 63);
    image
}

/// Runs as hardware with HA and HD leaves them: one entry accessed, one dirtied; one that is misaligned; one that is whole.
pub fn touched() -> Image {
    let mut image = Image::new(RAM, 12, 1, 2);
    let clean = PAGE & !(1 << 10) | 1 << 52;
    image.map(0x8000_0000, 3, 16, 0x5000_0000, clean);
    image.map(0x8000_5000, 3, 1, 0x5000_5000, clean | 1 << 10);
    let writable = (PAGE & !(1 << 7)) | 1 << 52 | 1 << 51;
    image.map(0x8001_0000, 3, 16, 0x5001_0000, writable);
    image.map(0x8001_3000, 3, 1, 0x5001_3000, writable | 1 << 7);
    image.map(0x8004_0000, 3, 16, 0x5004_1000, clean);
    image.map(0x8006_0000, 3, 16, 0x5006_0000, clean);
    image
}

/// Leaves that no access gets through with 40 output bits: a run of pages that leaves them, a block beyond, pages without
/// access flag.
pub fn faulting() -> Image {
    let mut image = Image::new(RAM, 12, 1, 2);
    image.map(0x8000_0000, 3, 4, 0xff_ffff_e000, PAGE);
    image.map(0x8020_0000, 2, 1, 0x100_0020_0000, BLOCK);
    image.map(0x8040_0000, 3, 2, 0x5000_0000, PAGE & !(1 << 10));
    image.map(0x8060_0000, 3, 4, 0x5100_0000, PAGE);
    image.map(0x8060_2000, 3, 1, 0x1ff_0000_0000, PAGE);
    image
}

/// A table with 52-bit addresses, for LPA2 (4 KiB pages) or LPA (64 KiB): its second table is in a copy of this memory from
/// `high` on, and pages are beyond 2^48.
pub fn wide(page_shift: u32, start_level: i8, high_in_table: u64, high_in_page: u64, attributes: u64) -> Image {
    let mut image = Image::new(RAM, page_shift, start_level, 1);
    image.map(0x8000_0000, 3, 2, 0x5000_0000, attributes | high_in_page);
    let index = 0x8000_0000_usize >> image.shift(start_level);
    image.words[index] |= high_in_table;
    image
}

/// A table of EL2's stage 1 with 39 input bits: code, data below a read-only table, a device, pages of EL0.
pub fn el2() -> Image {
    let mut image = Image::new(RAM, 12, 1, 1);
    let page = 1 << 10 | 3 << 8 | 0b11;
    image.map(0x0, 3, 4, 0x5000_0000, page | 0b11 << 6);
    image.map(0x4000, 3, 4, 0x5000_4000, page | 0b01 << 6 | 1 << 54 | 1 << 53);
    image.map(0x8000, 3, 1, 0x0900_0000, page | 1 << 2 | 0b01 << 6 | 1 << 54 | 1 << 50 | 1 << 11 | 1 << 5);
    image.map(0x4020_0000, 3, 8, 0x6000_0000, page | 0b01 << 6);
    image.map(0x4040_0000, 2, 2, 0x6040_0000, page & !0b10 | 0b01 << 6);
    // The table of the second gibibyte, and the one below it: nothing is writable; nothing is executed.
    image.words[1] |= 1 << 62;
    let below = ((image.words[1] & 0xffff_f000) - RAM) as usize / 8 + 1;
    image.words[below] |= 1 << 60;
    image
}

/// An ELF core of `machine` with `segments` of physical address and bytes, at offsets that are aligned to nothing.
pub fn core(machine: u16, segments: &[(u64, &[u8])]) -> Vec<u8> {
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| elf.extend(bytes);
    put(&4_u16.to_le_bytes()); // ET_CORE
    put(&machine.to_le_bytes());
    put(&1_u32.to_le_bytes());
    [0, 64, 0_u64].iter().for_each(|word| put(&word.to_le_bytes()));
    put(&0_u32.to_le_bytes());
    [64, 56, segments.len() as u16, 64, 0, 0].iter().for_each(|half| put(&half.to_le_bytes()));
    // Behind a note of 12 bytes.
    let mut offset = 64 + 56 * segments.len() as u64 + 12;
    for (start, bytes) in segments {
        let length = bytes.len() as u64;
        put(&1_u32.to_le_bytes()); // PT_LOAD
        put(&7_u32.to_le_bytes());
        [offset, 0, *start, length, length, 0].iter().for_each(|word| put(&word.to_le_bytes()));
        offset += length;
    }
    put(&[0xaa; 12]);
    segments.iter().for_each(|(_, bytes)| put(bytes));
    elf
}

/// Saves the images the golden tests name into `directory`.
pub fn save_all(directory: &Path) {
    let save = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    let (whole, holed) = (whole().bytes(), holed().bytes());
    save("whole.ram", &whole);
    save("holed.ram", &holed);
    save("android.ram", &android().bytes());
    save("zero.ram", &[0; 0x4000]);
    save("two-bit-xn.ram", &two_bit_xn().bytes());
    save("no-table.ram", &no_table().bytes());
    let mut damaged = two_bit_xn();
    // One page of a table that is in use is damaged.
    (0..200).for_each(|n| damaged.set(0x8010_0000 + (n << 12), 3, 0xffff_8000_8123_0000 + 0x40 * n));
    save("damaged.ram", &damaged.bytes());
    save("el2.ram", &el2().bytes());
    save("touched.ram", &touched().bytes());
    save("lpa2.ram", &wide(12, 0, 1 << 8, 1 << 48 | 3 << 8, PAGE & !(3 << 8)).bytes());
    save("lpa.ram", &wide(16, 2, 1 << 12, 0xf << 12, PAGE).bytes());
    save("faulting.ram", &faulting().bytes());
    save("contiguous.ram", &contiguous().bytes());
    let (low, high) = whole.split_at(0x4000);
    save("low.ram", low);
    save("high.ram", high);
    save("short.ram", &whole[..0x1000]);
    // The border within a table.
    let core_bytes = core(183, &[(RAM, &whole[..0x3800]), (RAM + 0x3800, &whole[0x3800..])]);
    save("whole.core", &core_bytes);
    save("longer.core", &[core_bytes.as_slice(), &[0; 100]].concat());
    save("cut.core", &core_bytes[..core_bytes.len() - 0x1000]);
    save("cut-headers.core", &core_bytes[..100]);
    save("x86.core", &core(62, &[(RAM, low)]));
    save("empty.core", &core(183, &[]));
    save("empty.ram", &[]);
}
