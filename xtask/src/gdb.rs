// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of QEMU's gdbstub, just large enough to read registers of a CPU that nothing in the guest shows.
//!
//! In the remote serial protocol a packet is `$data#checksum`, is acknowledged with `+`, and escapes a byte with `}`.
//! This client supports QEMU's answers to the packets below. It does not support run-length encoding, which QEMU does
//! not send, or breakpoints. The machine stops when a client connects, and is stopped from [`Gdb::interrupt`] to
//! [`Gdb::resume`].

mod packet;

use anyhow::{ensure, Context, Result};
use packet::{packet, unpacked};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long to wait for an answer. QEMU answers at once, even when all CPUs are busy.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of a description asked for at a time.
const CHUNK_BYTES: usize = 0x800;

/// A connection.
pub(crate) struct Gdb<S> {
    stream: S,
    /// Bytes that were received and not looked at yet.
    pending: Vec<u8>,
}

/// Returns the words that have QEMU listen at `path`. The path of a socket has to be short.
pub(crate) fn qemu_words(path: &Path) -> [String; 4] {
    // QEMU wants a comma in a value twice.
    let socket = format!("socket,id=gdb,path={},server=on,wait=off", path.display().to_string().replace(',', ",,"));
    ["-chardev".into(), socket, "-gdb".into(), "chardev:gdb".into()]
}

impl Gdb<UnixStream> {
    /// Connects to QEMU, which stops the machine.
    ///
    /// # Errors
    ///
    /// If QEMU does not listen or answer.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut gdb = Self { stream, pending: Vec::new() };
        // Without the feature QEMU does not describe system registers.
        gdb.ask("qSupported:xmlRegisters=aarch64")?;
        Ok(gdb)
    }
}

impl<S: Read + Write> Gdb<S> {
    /// Returns the number of each register by its name, from QEMU's own description.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub(crate) fn registers(&mut self) -> Result<HashMap<String, u32>> {
        let target = self.description("target.xml")?;
        let mut found = HashMap::new();
        let mut next = 0;
        for file in elements(&target, "xi:include").filter_map(|element| attribute(element, "href")) {
            let text = self.description(file)?;
            for register in elements(&text, "reg") {
                // Registers are numbered in order, except where a number is given.
                if let Some(number) = attribute(register, "regnum") {
                    next = number.parse().with_context(|| format!("{file}: {register}"))?;
                }
                let name = attribute(register, "name").with_context(|| format!("{file}: {register}"))?;
                found.insert(name.to_owned(), next);
                next += 1;
            }
        }
        Ok(found)
    }

    /// Returns the machine's CPUs, in order, as the protocol calls them.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub(crate) fn cpus(&mut self) -> Result<Vec<String>> {
        let mut cpus = Vec::new();
        let mut answer = self.ask("qfThreadInfo")?;
        while let Some(list) = answer.strip_prefix('m') {
            cpus.extend(list.split(',').map(str::to_owned));
            answer = self.ask("qsThreadInfo")?;
        }
        Ok(cpus)
    }

    /// Selects the CPU whose registers [`register`](Self::register) reads.
    ///
    /// # Errors
    ///
    /// If there is none of this name.
    pub(crate) fn select(&mut self, cpu: &str) -> Result<()> {
        let answer = self.ask(&format!("Hg{cpu}"))?;
        ensure!(answer == "OK", "QEMU has no CPU {cpu}: {answer}");
        Ok(())
    }

    /// Reads a 64-bit register of the selected CPU.
    ///
    /// # Errors
    ///
    /// If QEMU does not give it.
    pub(crate) fn register(&mut self, number: u32) -> Result<u64> {
        let answer = self.ask(&format!("p{number:x}"))?;
        // The bytes come in the target's order, which is little-endian.
        ensure!(answer.len() == 16, "register {number}: QEMU answers {answer:?}");
        let value = u64::from_str_radix(&answer, 16).with_context(|| format!("register {number}: {answer:?}"))?;
        Ok(value.swap_bytes())
    }

    /// Writes a 64-bit word of physical memory. The machine must be stopped.
    ///
    /// # Errors
    ///
    /// If QEMU does not write it.
    pub(crate) fn write_physical(&mut self, address: u64, value: u64) -> Result<()> {
        let hex: String = value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for command in ["Qqemu.PhyMemMode:1", &format!("M{address:x},8:{hex}")] {
            let answer = self.ask(command)?;
            ensure!(answer == "OK", "{command}: QEMU answers {answer:?}");
        }
        Ok(())
    }

    /// Lets the machine run.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.send("c")
    }

    /// Stops the running machine.
    ///
    /// # Errors
    ///
    /// If it does not stop.
    pub(crate) fn interrupt(&mut self) -> Result<()> {
        self.stream.write_all(b"\x03")?;
        let answer = self.receive()?;
        ensure!(answer.starts_with('T') || answer.starts_with('S'), "QEMU did not stop but says {answer:?}");
        Ok(())
    }

    /// Reads a description, piece by piece.
    fn description(&mut self, file: &str) -> Result<String> {
        let mut text = String::new();
        loop {
            let piece = self.ask(&format!("qXfer:features:read:{file}:{:x},{CHUNK_BYTES:x}", text.len()))?;
            if let Some(last) = piece.strip_prefix('l') {
                return Ok(text + last);
            }
            let more = piece.strip_prefix('m').filter(|more| !more.is_empty());
            text += more.with_context(|| format!("QEMU does not give {file}: {piece:?}"))?;
        }
    }

    /// Runs a command in QEMU's monitor, and returns what it printed. Most commands print nothing if all went well.
    ///
    /// # Errors
    ///
    /// If the connection fails, or QEMU has no monitor for us.
    pub(crate) fn monitor(&mut self, command: &str) -> Result<String> {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut answer = self.ask(&format!("qRcmd,{hex}"))?;
        let mut said = Vec::new();
        while let Some(hex) = answer.strip_prefix('O').filter(|hex| *hex != "K") {
            let digits = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2).unwrap_or_default());
            for byte in digits {
                said.push(u8::from_str_radix(byte, 16).with_context(|| format!("QEMU's monitor says {hex:?}"))?);
            }
            answer = self.receive()?;
        }
        ensure!(answer == "OK", "QEMU's monitor did not do `{command}`: {answer}");
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn ask(&mut self, data: &str) -> Result<String> {
        self.send(data)?;
        self.receive()
    }

    fn send(&mut self, data: &str) -> Result<()> {
        Ok(self.stream.write_all(&packet(data))?)
    }

    /// Returns the data of the next packet.
    fn receive(&mut self) -> Result<String> {
        loop {
            if let Some((data, length)) = unpacked(&self.pending)? {
                self.pending.drain(..length);
                self.stream.write_all(b"+")?;
                return Ok(data);
            }
            let mut bytes = [0; 4096];
            let length = self.stream.read(&mut bytes).context("QEMU's gdbstub does not answer")?;
            ensure!(length > 0, "QEMU closed the connection");
            self.pending.extend_from_slice(&bytes[..length]);
        }
    }
}

/// Returns what is between `<NAME ` and `>`, for each element of this name. QEMU's descriptions need no better parser.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("<{name} ");
    text.match_indices('<').filter_map(move |(at, _)| text[at..].strip_prefix(&start)?.split('>').next())
}

/// Returns the value of an attribute.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = element.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that answers each packet with the next of a list.
    struct Script {
        answers: Vec<&'static str>,
        sent: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let answer = packet(self.answers.remove(0));
            into[..answer.len()].copy_from_slice(&answer);
            Ok(answer.len())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.sent.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn gdb(answers: &[&'static str]) -> Gdb<Script> {
        Gdb { stream: Script { answers: answers.to_vec(), sent: Vec::new() }, pending: Vec::new() }
    }

    #[test]
    fn registers_are_numbered_in_order_but_where_a_number_is_given() {
        let mut gdb = gdb(&[
            "m<target><xi:include href=\"a.xml\"/><xi:inc",
            "llude href=\"b.xml\"/></target>",
            "l<feature><reg name=\"x0\" bitsize=\"64\"/><reg name=\"x1\" bitsize=\"64\"/></feature>",
            "l<feature><reg name=\"VTCR_EL2\" bitsize=\"64\" regnum=\"103\"/><reg name=\"next\"/></feature>",
        ]);
        let registers = gdb.registers().unwrap();
        assert_eq!([registers["x1"], registers["VTCR_EL2"], registers["next"]], [1, 103, 104]);
        assert!(String::from_utf8(gdb.stream.sent).unwrap().contains("target.xml:29,800#"), "the rest is asked for");
    }

    #[test]
    fn register_is_little_endian() {
        assert_eq!(gdb(&["90352d8000000000"]).register(103).unwrap(), 0x802d_3590);
        assert!(gdb(&["E14"]).register(103).is_err());
        assert!(gdb(&["90352d80"]).register(103).is_err(), "32 bits");
    }

    #[test]
    fn physical_memory_is_written_little_endian() {
        let mut gdb = gdb(&["OK", "OK"]);
        gdb.write_physical(0x4000_1008, 0x11_2233).unwrap();
        let sent = String::from_utf8(gdb.stream.sent).unwrap();
        assert!(sent.contains("$Qqemu.PhyMemMode:1#") && sent.contains("$M40001008,8:3322110000000000#"), "{sent}");
        assert!(super::tests::gdb(&["OK", "E14"]).write_physical(0, 0).is_err());
    }

    #[test]
    fn monitor_says_what_it_says() {
        let mut gdb = gdb(&["O6572726f", "O720d0a", "OK"]);
        assert_eq!(gdb.monitor("help").unwrap(), "error\r\n");
        assert!(gdb.stream.sent.starts_with(b"$qRcmd,68656c70#"));
    }

    #[test]
    fn cpus_are_asked_for_to_the_end() {
        assert_eq!(gdb(&["mp01.01,p01.02", "mp01.03", "l"]).cpus().unwrap(), ["p01.01", "p01.02", "p01.03"]);
    }
}
