// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory does not grow with the dump: a long one is streamed through the program while it is watched.
#![cfg(target_os = "linux")]

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use s2dump_abi::slot::{slot_flags, vm_flags, SlotHeader};
use s2dump_abi::target::Target;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use support::*;
use zerocopy::IntoBytes;

/// 2 MiB of slots: some 63,000 rows.
const SLOTS: u64 = 512;
/// By then all buffers have their size.
const WARM_SLOTS: u64 = 64;
/// What the peak may still rise by: noise of the allocator, a fraction of what follows.
const MOST_RISE_KIB: u64 = 512;

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn long_dumps_are_streamed() {
    // Without a name all of the input is looked through first, which needs a copy of it, but not in memory.
    for (format, name) in [("table", "vm:0x1000"), ("ndjson", "vm:0x1000"), ("ptdump", "vm:0x1000"), ("table", "")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_s2dump"))
            .args(["dump", "-i", "-", "--exact", "--format", format])
            .args(Some(name).filter(|name| !name.is_empty()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                total += count;
            }
            total
        });
        let mut stdin = child.stdin.take().unwrap();
        let header = SlotHeader { record_count: 124, ..dump_header(0x1000, VTCR_48) };
        let mut warm_peak = 0;
        for sequence in 0..SLOTS {
            // A pipe holds 16 slots at most: the rest was taken in.
            if sequence == WARM_SLOTS {
                warm_peak = peak_kib(child.id());
            }
            let at = |page: u64| (sequence * 124 + page) * 0x1000;
            // No two neighbors join: the output addresses jump, and so do the rights, for ptdump.
            let page = |n: u64| leaves(at(n), 3, 1, (at(n) * 2 + 0x1000) & ((1 << 48) - 1), PAGE & !((n & 1) << 7));
            let records: Vec<_> = (0..124).map(page).collect();
            stdin.write_all(SlotHeader { sequence, start: at(0), next: at(124), ..header }.as_bytes()).unwrap();
            stdin.write_all(records.as_bytes()).unwrap();
        }
        // The program still waits for more: its peak can be read.
        let peak = peak_kib(child.id());
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(6), "{format}: no END slot");
        let total = reader.join().unwrap();
        assert!(total > 3 << 20, "{format}: {total} bytes");
        assert!(peak < warm_peak + MOST_RISE_KIB, "{format}: {warm_peak} KiB, then {peak} KiB");
    }
}

/// Of the tables in an image only some are kept: one with 48 MiB of them is watched near its end.
#[test]
fn tables_of_images_are_forgotten() {
    const TABLES: u64 = 12_000;
    const MOST_KIB: u64 = 24 << 10;
    let mut image = images::Image::new(images::RAM, 12, 1, 2);
    // Output addresses run on within a table and not from one to the next: a row for each.
    (0..TABLES).for_each(|n| image.map(n << 21, 3, 512, (1 << 39) - ((n + 1) << 21), PAGE));
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tables-{}", std::process::id()));
    std::fs::write(&path, image.bytes()).unwrap();
    let ram = format!("{}@{:#x}", path.display(), images::RAM);
    let mut child = Command::new(env!("CARGO_BIN_EXE_s2dump"))
        .args(["dump", "--ram", &ram, "--vtcr", "0x80023558", "--vttbr", "0x40000000", "--exact", "-n", "-o", "range"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // A pipe and the program's own buffer hold 128 KiB: it cannot have ended before the rest is read.
    let mut nearly_all = vec![0; TABLES as usize * 38 - (200 << 10)];
    stdout.read_exact(&mut nearly_all).unwrap();
    let peak = peak_kib(child.id());
    stdout.read_to_end(&mut nearly_all).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(nearly_all.len() as u64 > TABLES * 38, "{} bytes", nearly_all.len());
    assert!(peak < MOST_KIB, "{peak} KiB");
}

/// A machine of 2 GiB with four guests of 128 MiB, of which no two pages lie side by side, in a capture as EL2 writes it:
/// 131,072 records for the guests, and as many for their pages in the host's table. The program is watched to its end.
#[test]
fn audits_of_machines_are_bounded() {
    const PAGES: u64 = 32 << 10;
    const MOST_KIB: u64 = 40 << 10;
    let mut machine = pkvm::Machine { trees: pkvm::machine().trees, ..pkvm::machine() };
    machine.facts[0].size = 2 << 30;
    machine.facts.remove(1);
    let (ram, host) = (pkvm::RAM, Target::HOST);
    machine.trees.iter_mut().for_each(|tree| {
        tree.entries.clear();
        tree.tables.clear();
    });
    machine.vms.iter_mut().take(4).for_each(|vm| vm.flags |= vm_flags::PROTECTED);
    machine.frames.clear();
    machine.trees.remove(1);
    for guest in 0..4 {
        let handle = 0x1000 + guest as u16;
        machine.guest(handle).header.flags |= slot_flags::PROTECTED;
        for page in 0..PAGES {
            // Each guest has every fourth of 512 MiB, in an order of its own.
            let pa = ram + ((page * 4097 % PAGES) * 4 + guest) * 0x1000;
            let ia = 0x8000_0000 + page * 0x1000;
            machine.guest(handle).map(ia, 3, 1, pa, PAGE);
            machine.tree(host).annotate(pa, 1, pkvm::donated(handle, ia));
        }
    }
    machine.frame(ram, 4 * PAGES, pkvm::FRAME_GUEST);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{}", std::process::id()));
    std::fs::write(&path, machine.capture().bytes).unwrap();
    let begun = std::time::Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_s2dump"))
        .args([
            "audit",
            "-i",
            path.to_str().unwrap(),
            "--rule",
            "owned-donated,donation-backed,guest-exclusive,protected-leaf",
        ])
        .args([
            "--rule",
            "frame-donated,frame-hyp-owned,frame-shares,share-count,borrowed-lender,host-identity,guest-memory",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        // Its status has no peak once it has ended.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        peak = peak.max(line.and_then(|kib| kib.parse().ok()).unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    std::fs::remove_file(path).unwrap();
    println!("{peak} KiB at most, {:?}", begun.elapsed());
    assert!(out.contains("findings: 0, unsettled: 0, settled by a second look: 0\n"), "{out}");
    assert!(peak > 4 << 10 && peak < MOST_KIB, "{peak} KiB");
}
