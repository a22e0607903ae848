// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers as people type and read them.

use s2dump_vmsa::Level;
use std::fmt;

/// Why a number or range could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NumberError {
    /// Not a number.
    #[error("`{0}` is not a number (try 0x8000_0000, 2G, 512K)")]
    NotANumber(String),
    /// Digits without a base: what is told are the spellings that say which is meant.
    #[error("`{0}` does not say its base: write {1}")]
    NoBase(String, String),
    /// Not a size of physical addresses.
    #[error("`{0}` is not a size of physical addresses: 32, 36, 40, 42, 44, 48 or 52")]
    NotPaBits(String),
    /// Not a level.
    #[error("`{0}` is not a level: -1 to 3")]
    NotALevel(String),
    /// Does not fit 64 bits.
    #[error("`{0}` does not fit 64 bits")]
    TooLarge(String),
    /// A part of a range is not there; what is told is how it looks if it is.
    #[error("range `{0}`: {1} is missing: {2}")]
    Missing(String, &'static str, String),
    /// End at or before start.
    #[error("range {0} is empty: it ends at or before its start")]
    Empty(String),
}

/// The rule of [`parse_number`], for `--help`.
pub(crate) const RULE: &str = "\
Numbers, wherever an address, a register or a descriptor is wanted: 0x8000_0000 is hexadecimal, 4096 is decimal; 512K, 2M,
1G and 1T are sizes, also as 512KiB. Five or more digits without 0x or suffix are hexadecimal if a letter is among them
(4c4b8d2), and are refused if none is: 80001234 could be meant either way. Up to four digits with a letter among them (7ff) are
refused too.";

/// A bare number of up to so many digits is decimal.
const DECIMAL_DIGITS: usize = 4;

/// Reads an address, register or descriptor. There is one rule for all of them, so that a number that is copied from one
/// place to another cannot change its value:
///
/// - `0x` makes it hexadecimal, and a K, M, G or T behind it, or KiB and so on, as this program prints sizes, multiplies by a power
///   of 1024; underscores may stand anywhere.
/// - Up to four decimal digits without either are decimal: `0`, `4096`.
/// - Five digits or more without either are hexadecimal if a letter shows it: logs print addresses so. Without a letter
///   they could be meant either way, and are refused unless both readings are the same, which they are for zeroes.
/// - Up to four digits with a letter among them are refused too. As hexadecimal they would stand beside short decimal
///   numbers that look like them: of `7ff` and `783` from one log, only one would be read as it was meant.
pub(crate) fn parse_number(text: &str) -> Result<u64, NumberError> {
    let bad = || NumberError::NotANumber(text.to_owned());
    let too_large = || NumberError::TooLarge(text.to_owned());
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    let short = plain.strip_suffix("iB").filter(|short| short.ends_with(['K', 'M', 'G', 'T'])).unwrap_or(&plain);
    let (digits, shift) = match short.char_indices().last().ok_or_else(bad)? {
        (at, 'K' | 'k') => (&short[..at], Some(10)),
        (at, 'M' | 'm') => (&short[..at], Some(20)),
        (at, 'G' | 'g') => (&short[..at], Some(30)),
        (at, 'T' | 't') => (&short[..at], Some(40)),
        _ => (short, None),
    };
    let value = match (digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")), shift) {
        (Some(hex), _) => parse_digits(hex, 16).ok_or_else(bad)?.ok_or_else(too_large)?,
        (None, Some(_)) => parse_digits(digits, 10).ok_or_else(bad)?.ok_or_else(too_large)?,
        (None, None) => parse_bare(text, digits)?,
    };
    value.checked_mul(1 << shift.unwrap_or(0)).ok_or_else(too_large)
}

/// Reads `digits` that say no base; `text` is how they were typed.
fn parse_bare(text: &str, digits: &str) -> Result<u64, NumberError> {
    let is_short = digits.len() <= DECIMAL_DIGITS;
    let hexadecimal = parse_digits(digits, 16).ok_or_else(|| NumberError::NotANumber(text.to_owned()))?;
    let spellings = match (parse_digits(digits, 10), hexadecimal) {
        (Some(Some(value)), _) if is_short || hexadecimal == Some(value) => return Ok(value),
        (Some(Some(value)), Some(hexadecimal)) => format!("{hexadecimal:#x} or {value:#x}"),
        (None, Some(value)) if !is_short => return Ok(value),
        (Some(Some(value)), None) | (None, Some(value)) => format!("{value:#x}"),
        (None | Some(None), _) => return Err(NumberError::TooLarge(text.to_owned())),
    };
    Err(NumberError::NoBase(text.to_owned(), spellings))
}

/// Reads hexadecimal digits as they stand in logs, with or without 0x: for input that is said to be such.
pub(crate) fn parse_hex(text: &str) -> Result<u64, NumberError> {
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    let digits = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")).unwrap_or(&plain);
    parse_digits(digits, 16)
        .ok_or_else(|| NumberError::NotANumber(text.to_owned()))?
        .ok_or_else(|| NumberError::TooLarge(text.to_owned()))
}

/// Reads digits and nothing else: `None` if they are not all of `radix`, `Some(None)` if the value does not fit 64 bits.
fn parse_digits(digits: &str, radix: u32) -> Option<Option<u64>> {
    let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all.then(|| u64::from_str_radix(digits, radix).ok())
}

/// Reads a number of physical address bits that a CPU can have.
pub(crate) fn parse_pa_bits(text: &str) -> Result<u8, NumberError> {
    match text.parse() {
        Ok(bits @ (32 | 36 | 40 | 42 | 44 | 48 | 52)) => Ok(bits),
        _ => Err(NumberError::NotPaBits(text.to_owned())),
    }
}

/// Reads a level: -1 to 3, as `2` or `L2`.
pub(crate) fn parse_level(text: &str) -> Result<Level, NumberError> {
    let bad = || NumberError::NotALevel(text.to_owned());
    let digits = text.strip_prefix(['L', 'l']).unwrap_or(text);
    digits.parse().ok().and_then(|level| Level::try_new(level).ok()).ok_or_else(bad)
}

/// A range of addresses; `end` is exclusive, `u64::MAX` means up to the end of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    /// First address.
    pub(crate) start: u64,
    /// First address after.
    pub(crate) end: u64,
    /// One address was typed, which stands for its page if that begins there.
    pub(crate) is_address: bool,
    /// These are whole pages, and what was typed is less.
    pub(crate) is_widened: bool,
}

impl AddressRange {
    /// The whole input-address space.
    pub(crate) const ALL: Self = Self::new(0, u64::MAX);

    const fn new(start: u64, end: u64) -> Self {
        Self { start, end, is_address: false, is_widened: false }
    }

    /// Returns the pages of `1 << page_shift` bytes that the range has a part of.
    pub(crate) fn whole_pages(self, page_shift: u32) -> Self {
        let Self { start, end, .. } = self;
        let last_of_page = (1 << page_shift) - 1;
        let whole = match end {
            u64::MAX => end,
            // Behind the last page of all there is no address.
            end => ((end - 1) | last_of_page).saturating_add(1),
        };
        let start = start & !last_of_page;
        let is_page = self.is_address && start == self.start;
        let is_widened = !is_page && (start, whole) != (self.start, end);
        Self { is_widened, ..Self::new(start, whole) }
    }
}

/// Shows a range as rows show it.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            u64::MAX => write!(f, "{:#x}..", self.start),
            end => write!(f, "{:#x}-{:#x}", self.start, end - 1),
        }
    }
}

/// Reads `a..b`, `a..`, `..b`, `a+len`, `a-last` as rows are printed, or one address. Who knows the page size makes it
/// [whole pages](AddressRange::whole_pages).
pub(crate) fn parse_range(text: &str) -> Result<AddressRange, NumberError> {
    let missing = |what, example| Err(NumberError::Missing(text.to_owned(), what, example));
    let (start, end) = if let Some((a, b)) = text.split_once("..") {
        let start = if a.is_empty() { 0 } else { parse_number(a)? };
        (start, if b.is_empty() { u64::MAX } else { parse_number(b)? })
    } else if let Some((a, length)) = text.split_once('+') {
        match (a.is_empty(), length.is_empty()) {
            (true, false) => return missing("begin", format!("2G{text}")),
            (_, true) => return missing("length", "2G+512MiB".into()),
            (false, false) => {}
        }
        let start = parse_number(a)?;
        let end = start.checked_add(parse_number(length)?).ok_or_else(|| NumberError::TooLarge(text.to_owned()))?;
        (start, end)
    } else if let Some((a, last)) = text.split_once('-') {
        match (a.is_empty(), last.is_empty()) {
            (true, false) => return missing("begin", format!("0{text}")),
            (_, true) => return missing("last address", format!("0x80001000-0x80002fff; {a}.. for all from there")),
            (false, false) => {}
        }
        (parse_number(a)?, parse_number(last)?.saturating_add(1))
    } else {
        let start = parse_number(text)?;
        return Ok(AddressRange { is_address: true, ..AddressRange::new(start, start.saturating_add(1)) });
    };
    if start >= end {
        return Err(NumberError::Empty(text.to_owned()));
    }
    Ok(AddressRange::new(start, end))
}

/// Shows bytes in the largest unit that keeps them exact, or to one decimal where that would take five digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        let mut value = self.0;
        while value != 0 && value % 1024 == 0 && unit < UNITS.len() - 1 {
            value /= 1024;
            unit += 1;
        }
        if value < 10_000 {
            return f.pad(&format!("{value}{}", UNITS[unit]));
        }
        let mut tenths = u128::from(value) * 10;
        while tenths >= 10_240 && unit < UNITS.len() - 1 {
            tenths /= 1024;
            unit += 1;
        }
        f.pad(&format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_numbers() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("9999", 9999),
            ("0x8000_0000", 0x8000_0000),
            ("2G", 2 << 30),
            ("512k", 512 << 10),
            ("512KiB", 512 << 10),
            ("0x10MiB", 16 << 20),
            ("80001234K", 80_001_234 << 10),
            ("0x10M", 16 << 20),
            ("1_0", 10),
            ("0xffffffffffffffff", u64::MAX),
            ("0x7ff", 0x7ff),
            ("4c4b8d2", 0x4c4_b8d2),
            ("8000_123F", 0x8000_123f),
            ("0000000000000000", 0),
            ("00000007", 7),
        ];
        for (text, value) in cases {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn bad_numbers() {
        for text in [
            "", "_", "K", "0x", "x10", "-1", "+5", "12q", "0xg", "1.5G", "é", "4kiB", "4iB", "4KB", "4c4b8d2K", "0x0x1",
        ] {
            assert_eq!(parse_number(text), Err(NumberError::NotANumber(text.into())), "{text}");
        }
        for text in ["0x10000000000000000", "99999999999T", "123456789012345678901", "1000000000000000f"] {
            assert_eq!(parse_number(text), Err(NumberError::TooLarge(text.into())), "{text}");
        }
    }

    /// What could be meant either way is refused with both spellings, whatever digits it has and wherever it stands.
    #[test]
    fn bad_numbers_without_a_base() {
        let cases = [
            ("80001234", "0x80001234 or 0x4c4b8d2"),
            ("8000_1234", "0x80001234 or 0x4c4b8d2"),
            ("10000", "0x10000 or 0x2710"),
            ("00783", "0x783 or 0x30f"),
            // Of one reading only, but not of the one a short number has.
            ("7ff", "0x7ff"),
            // Too long to be hexadecimal.
            ("18014398509481984", "0x40000000000000"),
        ];
        for (text, spellings) in cases {
            assert_eq!(parse_number(text), Err(NumberError::NoBase(text.into(), spellings.into())), "{text}");
        }
        for range in ["80001000..0x90000000", "0..80001000", "80001000+4K", "1G+80001000"] {
            assert!(matches!(parse_range(range), Err(NumberError::NoBase(..))), "{range}");
        }
    }

    #[test]
    fn hexadecimal() {
        for (text, value) in [("0", 0), ("783", 0x783), ("80023558", 0x8002_3558), ("0x8002_3558", 0x8002_3558)] {
            assert_eq!(parse_hex(text), Ok(value), "{text}");
        }
        for text in ["", "0x", "2G", "-1", "+1", "0x0x1"] {
            assert_eq!(parse_hex(text), Err(NumberError::NotANumber(text.into())), "{text}");
        }
        assert_eq!(parse_hex("10000000000000000"), Err(NumberError::TooLarge("10000000000000000".into())));
    }

    #[test]
    fn levels() {
        for (text, level) in [("-1", -1), ("0", 0), ("L2", 2), ("3", 3), ("L-1", -1)] {
            assert_eq!(parse_level(text).map(Level::get), Ok(level), "{text}");
        }
        for text in ["", "L", "4", "-2", "x"] {
            assert_eq!(parse_level(text), Err(NumberError::NotALevel(text.into())), "{text}");
        }
    }

    #[test]
    fn good_ranges() {
        let pages = |text| parse_range(text).map(|range| range.whole_pages(12));
        let range = |start, end| Ok(AddressRange::new(start, end));
        assert_eq!(pages("2G..0x8020_0000"), range(0x8000_0000, 0x8020_0000));
        assert_eq!(pages("0x80000000+2M"), range(0x8000_0000, 0x8020_0000));
        assert_eq!(pages("..4K"), range(0, 4096));
        assert_eq!(pages("4K.."), range(4096, u64::MAX));
        assert_eq!(pages("0x80001000-0x80002fff"), range(0x8000_1000, 0x8000_3000));
        assert_eq!(pages("2GiB+512MiB"), range(0x8000_0000, 0xa000_0000));
        assert_eq!(pages("0x80001000"), range(0x8000_1000, 0x8000_2000), "an address stands for its page");
        assert_eq!(pages("0-0xffffffffffffffff"), range(0, u64::MAX));
        assert_eq!(pages("0xfffffffffffff000"), range(0xffff_ffff_ffff_f000, u64::MAX));
    }

    #[test]
    fn unaligned_ranges_are_widened_to_pages() {
        let pages = |text| parse_range(text).map(|range| range.whole_pages(12));
        let widened = |start, end| Ok(AddressRange { is_widened: true, ..AddressRange::new(start, end) });
        assert_eq!(pages("0x80001234+4K"), widened(0x8000_1000, 0x8000_3000));
        assert_eq!(pages("0x80001234"), widened(0x8000_1000, 0x8000_2000));
        assert_eq!(pages("0x80001000..0x80001001"), widened(0x8000_1000, 0x8000_2000));
        assert_eq!(pages("0xffffffffffffffff"), widened(0xffff_ffff_ffff_f000, u64::MAX));
        assert_eq!(pages("1..4K"), widened(0, 4096));
        assert_eq!(pages("1..3"), widened(0, 4096));
        assert_eq!(pages("1G-2G"), widened(1 << 30, (2 << 30) + 4096));
        let of_64k = |text| parse_range(text).unwrap().whole_pages(16);
        assert_eq!(of_64k("64K..128K"), AddressRange::new(1 << 16, 2 << 16));
        assert_eq!(of_64k("64K"), AddressRange::new(1 << 16, 2 << 16));
        assert_eq!(Ok(of_64k("68K..")), widened(1 << 16, u64::MAX));
        assert_eq!(Ok(of_64k("0x80001000")), widened(0x8000_0000, 0x8001_0000), "the page of another size");
        assert_eq!(of_64k("68K..124K").to_string(), "0x10000-0x1ffff");
    }

    #[test]
    fn bad_ranges() {
        assert_eq!(parse_range("4K..4K"), Err(NumberError::Empty("4K..4K".into())));
        assert_eq!(parse_range("8K..4K"), Err(NumberError::Empty("8K..4K".into())));
        assert_eq!(parse_range("4K+0"), Err(NumberError::Empty("4K+0".into())));
        assert_eq!(parse_range("8K-4K"), Err(NumberError::Empty("8K-4K".into())));
        assert_eq!(parse_range("x"), Err(NumberError::NotANumber("x".into())));
        for (text, told) in [
            ("+512MiB", "range `+512MiB`: begin is missing: 2G+512MiB"),
            ("4K+", "range `4K+`: length is missing: 2G+512MiB"),
            ("+", "range `+`: length is missing: 2G+512MiB"),
            ("4K-", "range `4K-`: last address is missing: 0x80001000-0x80002fff; 4K.. for all from there"),
            ("-4K", "range `-4K`: begin is missing: 0-4K"),
        ] {
            assert_eq!(parse_range(text).unwrap_err().to_string(), told);
        }
        assert!(matches!(parse_range("0xfffffffffffff000+8K"), Err(NumberError::TooLarge(_))));
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0B"),
            (4096, "4KiB"),
            (2 << 20, "2MiB"),
            (2044 << 10, "2044KiB"),
            ((1 << 30) - 4096, "1023.9MiB"),
            ((1 << 48) - (1 << 30), "255.9TiB"),
            (u64::MAX, "15.9EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
