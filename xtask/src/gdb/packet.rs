// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets of the remote serial protocol: `$data#checksum`, where `}` escapes a byte.

use anyhow::{bail, ensure, Context, Result};

/// Returns the sum of the bytes, as a packet ends with it.
fn checksum(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Returns a packet. What we send needs no escape.
pub(super) fn packet(data: &str) -> Vec<u8> {
    format!("${data}#{:02x}", checksum(data.as_bytes())).into_bytes()
}

/// Returns the data of the first packet in `bytes`, and how many bytes it took with what comes before it; none if it is
/// not whole yet.
pub(super) fn unpacked(bytes: &[u8]) -> Result<Option<(String, usize)>> {
    let Some(start) = bytes.iter().position(|byte| *byte == b'$') else { return Ok(None) };
    let Some(length) = bytes[start..].iter().position(|byte| *byte == b'#') else { return Ok(None) };
    let Some(sum) = bytes.get(start + length + 1..start + length + 3) else { return Ok(None) };
    let data = &bytes[start + 1..start + length];
    let said = std::str::from_utf8(sum).ok().and_then(|sum| u8::from_str_radix(sum, 16).ok());
    ensure!(said == Some(checksum(data)), "QEMU sent a packet with a wrong checksum");
    let mut text = Vec::with_capacity(data.len());
    let mut data = data.iter();
    while let Some(&byte) = data.next() {
        match byte {
            b'}' => text.push(data.next().context("a packet ends within an escape")? ^ 0x20),
            b'*' => bail!("QEMU sent a run, which is not supported"),
            byte => text.push(byte),
        }
    }
    Ok(Some((String::from_utf8(text)?, start + length + 3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_packets() {
        assert_eq!(packet("qfThreadInfo"), b"$qfThreadInfo#bb");
        assert_eq!(unpacked(b"+$OK#9a+").unwrap(), Some(("OK".into(), 7)));
        assert_eq!(unpacked(b"$a}\x03}]#bb").unwrap(), Some(("a#}".into(), 9)));
        for part in ["", "+", "$O", "$OK#", "$OK#9"] {
            assert_eq!(unpacked(part.as_bytes()).unwrap(), None, "{part:?}");
        }
    }

    #[test]
    fn bad_packets() {
        for packet in ["$OK#9b", "$OK#xy", "$}#7d", "$0*~#d8"] {
            assert!(unpacked(packet.as_bytes()).is_err(), "{packet:?}");
        }
    }
}
