// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps as files. The pages that are made here stay in `target/tmp/map`, where `cargo xtask map` shows them to a browser.

#[expect(dead_code, unreachable_pub, reason = "shared with unit tests, each uses a part")]
mod support;

use s2dump_abi::slot::{slot_flags, vm_flags};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::*;

/// The most that the page of a large machine takes.
const MOST_BYTES: u64 = 3 << 20;
/// Pages of each of its guests: 512 MiB.
const GUEST_PAGES: u64 = 128 << 10;
/// Its memory: 4 GiB.
const MEMORY: u64 = 4 << 30;

fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("map");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Saves a capture of `machine` as `name`.
fn save(machine: &pkvm::Machine, name: &str) {
    std::fs::write(directory().join(name), machine.capture().bytes).unwrap();
}

/// Runs `s2dump map`, and returns the size of what it wrote.
fn map(arguments: &[&str], output: &str) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s2dump"));
    let ran = command.arg("map").args(arguments).args(["-O", output]).current_dir(directory()).output().unwrap();
    assert_eq!(
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap()),
        (Some(0), format!("s2dump: wrote {output}\n"))
    );
    std::fs::metadata(directory().join(output)).unwrap().len()
}

/// A machine of 4 GiB with four protected guests of 512 MiB, whose pages lie all over memory. They share a few, and one of 15 later.
fn scattered(is_later: bool) -> pkvm::Machine {
    let mut machine = pkvm::machine();
    machine.facts[0].size = MEMORY;
    machine.facts.remove(1);
    let guests = pkvm::PROTECTED_PA..pkvm::RAM_END;
    machine.vms.iter_mut().take(4).for_each(|vm| vm.flags |= vm_flags::PROTECTED);
    machine.host().entries.retain(|ia, _| !guests.contains(ia) && *ia != pkvm::RAM_END);
    machine.frames.retain(|pa, _| !guests.contains(pa));
    for tree in &mut machine.trees[2..] {
        tree.header.flags |= slot_flags::PROTECTED;
        tree.entries.clear();
    }
    machine.trees.iter_mut().for_each(|tree| tree.tables.clear());
    // Table pages of all.
    let pool = 0x4100_0000;
    machine.host().annotate(pool, 4096, pkvm::HYP_OWNED);
    machine.frame(pool, 4096, pkvm::FRAME_HYP | 1);
    machine.hyp().map(pkvm::HYP_BASE + pool, 2, 8, pool, pkvm::HYP_RW & !0b10);

    let mut free: Vec<u64> = (pkvm::RAM_END..pkvm::RAM + MEMORY).step_by(0x1000).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for guest in 0..4 {
        let handle = 0x1000 + guest;
        for page in 0..GUEST_PAGES {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let pa = free.swap_remove((random % free.len() as u64) as usize);
            let ia = 0x8000_0000 + page * 0x1000;
            // At its end the guest shares some, and the host took some back.
            let is_shared = GUEST_PAGES - page <= 4096 || is_later && page % 15 == 0;
            match GUEST_PAGES - page {
                1..=16 => machine.guest(handle).annotate(ia, 1, POISONED),
                _ if is_shared => {
                    machine.guest(handle).map(ia, 3, 1, pa, PAGE | SHARED_OWNED);
                    machine.host().map(pa, 3, 1, pa, PAGE);
                    machine.frame(pa, 1, pkvm::FRAME_BORROWED);
                }
                _ => {
                    machine.guest(handle).map(ia, 3, 1, pa, PAGE);
                    machine.host().annotate(pa, 1, pkvm::donated(handle, ia));
                    machine.frame(pa, 1, pkvm::FRAME_GUEST);
                }
            }
        }
    }
    let mut next = pool;
    machine.trees.iter_mut().for_each(|tree| tree.add_tables(&mut next));
    assert!(next < pool + (16 << 20));
    machine
}

/// Half a million pages that lie anywhere in 4 GiB are 1.3 MB of information, whatever is done; base64 makes 1.75 MB of that.
#[test]
fn a_large_machine_is_a_small_file() {
    save(&scattered(false), "scattered.s2d");
    let begun = std::time::Instant::now();
    let bytes = map(&["-i", "scattered.s2d"], "scattered.html");
    println!("{bytes} bytes in {:?}", begun.elapsed());
    assert!((1_700_000..MOST_BYTES).contains(&bytes), "{bytes} bytes");
    std::fs::remove_file(directory().join("scattered.s2d")).unwrap();
}

/// A page that a guest shares is three changes: of its table, of the host's and of its frame.
#[test]
#[ignore = "takes half a minute: `cargo xtask map` runs it, and looks at the page"]
fn many_changes_are_told() {
    save(&scattered(false), "before.s2d");
    save(&scattered(true), "shared.s2d");
    map(&["-i", "shared.s2d", "--since", "before.s2d"], "shared.html");
    for name in ["before.s2d", "shared.s2d"] {
        std::fs::remove_file(directory().join(name)).unwrap();
    }
}

#[test]
fn small_machines_are_small_files() {
    save(&pkvm::machine(), "small.s2d");
    let mut later = pkvm::later();
    // Four pages are the host's again, and the frame of one is not: a change that reaches beyond the next ones.
    later.frame(pkvm::SECOND_PA + 0x1000, 1, pkvm::FRAME_HYP);
    save(&later, "later.s2d");
    assert!(map(&["-i", "small.s2d"], "small.html") < 80 << 10);
    assert!(map(&["-i", "small.s2d", "--svg"], "small.svg") < 20 << 10);
    assert!(map(&["-i", "later.s2d", "--since", "small.s2d"], "changed.html") < 80 << 10);
    assert!(map(&["-i", "later.s2d", "--since", "small.s2d", "--svg"], "changed.svg") < 20 << 10);
}
