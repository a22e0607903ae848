// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each thing that must be refused is refused in its own way, and breaks nothing.

use super::support::{check_nothing_broken, handle_of};
use super::{tests, Outcome};
use crate::device::{dump_request, Device, PATH};
use crate::machine::Machine;
use crate::program::{self, exit};
use crate::script::page_bytes;
use crate::vmm_process::VmmProcess;
use anyhow::{ensure, Context as _, Result};
use rustix::io::Errno;
use rustix::mm::{MprotectFlags, ProtFlags};
use s2dump_abi::hypercall::Op;
use s2dump_abi::ioctl::{Advance, Hello, Start, ADVANCE, HELLO, START};
use s2dump_abi::target::{END_HANDLE, FIRST_HANDLE, HANDLES};
use s2dump_abi::version::{AbiVersion, ABI_VERSION};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use zerocopy::{FromZeros as _, IntoBytes as _};

tests!(On:
    unknown_handle,
    reserved_handle,
    not_root,
    bad_range,
    bad_start,
    bad_ioctl_size,
    bad_ioctl_version,
    bad_ioctl_number,
    bad_advance,
    map_writable,
    map_elsewhere,
    mixed_readers,
    program_usage,
);

fn refused(what: &str, result: Result<(), Errno>, errno: Errno) -> Result<()> {
    ensure!(result == Err(errno), "{what}: {result:?} instead of {errno:?}");
    Ok(())
}

fn unknown_handle(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    // Below, in, and above the range of handles; the last one of them.
    for handle in [0, 1, FIRST_HANDLE - 1, FIRST_HANDLE, END_HANDLE - 1, END_HANDLE, u16::MAX] {
        refused(&format!("handle {handle:#x}"), device.start(&dump_request(handle)), Errno::NOENT)?;
    }
    let name = format!("vm:{:#x}", FIRST_HANDLE + HANDLES / 2);
    program::run(&["dump", &name])?.fails(exit::NO_SUCH_VM, &[&name])?;
    program::run(&["dump", "vm:999999"])?.fails(exit::NO_SUCH_VM, &["999999"])?;
    program::run(&["walk", &name, "0x80000000"])?.fails(exit::NO_SUCH_VM, &[&name])?;
    check_nothing_broken(machine)
}

fn reserved_handle(machine: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected")?;
    let target = format!("vm:{}", vmm.expected.pid);
    // Without a handle nothing says which VM is meant.
    let errno = if machine.flavor.has_early_handles() { Errno::NODATA } else { Errno::NOENT };
    refused("a VM that never ran", Device::open()?.start(&dump_request(handle_of(&vmm)?)), errno)?;
    program::run(&["dump", &target])?.fails(exit::NO_SUCH_VM, &["run"])?;
    vmm.end()?;
    check_nothing_broken(machine)
}

fn not_root(machine: &Machine) -> Outcome {
    program::run_as_nobody(&["list"])?.fails(exit::NOT_PERMITTED, &["root"])?;
    // With the file's own rights out of the way, the capability is what is missing.
    let before = fs::metadata(PATH)?.permissions();
    ensure!(before.mode() & 0o777 == 0o600, "mode of {PATH} is {:o}", before.mode());
    fs::set_permissions(PATH, Permissions::from_mode(0o666))?;
    let ran = program::run_as_nobody(&["list"]);
    fs::set_permissions(PATH, before)?;
    ran?.fails(exit::NOT_PERMITTED, &[])?;
    check_nothing_broken(machine)
}

fn bad_range(machine: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:1")?;
    let (good, space) = (dump_request(handle_of(&vmm)?), 1_u64 << vmm.expected.ipa_bits);
    let (device, page) = (Device::open()?, page_bytes());
    // Each is wrong in one way only.
    let ranges = [
        ("unaligned start", 1, 2 * page),
        ("start in the middle of a page", page / 2, 2 * page),
        ("unaligned end", 0, page + 0x234),
        ("end in the middle of a page", 0, page + page / 2),
        ("empty", page, page),
        ("end before start", 2 * page, page),
        ("start past the space", space, space + page),
        ("start far past the space", 1 << 63, u64::MAX),
    ];
    for (what, start, end) in ranges {
        refused(what, device.start(&Start { start, end, ..good }), Errno::RANGE)?;
    }
    refused(
        "walk past the space",
        device.start(&Start { op: Op::WALK.0, start: space, end: 0, ..good }),
        Errno::RANGE,
    )?;
    let target = format!("vm:{}", vmm.expected.pid);
    let ran = program::run(&["dump", &target, "--range", &format!("{space:#x}+4K")])?;
    ran.fails(exit::USAGE_OR_IO, &[&format!("{space:#x}")])?;
    vmm.end()?;
    check_nothing_broken(machine)
}

fn bad_start(machine: &Machine) -> Outcome {
    let vmm = VmmProcess::start("protected touch:1")?;
    let good = dump_request(handle_of(&vmm)?);
    let device = Device::open()?;
    let cases = [
        ("unknown operation", Start { op: 99, ..good }, Errno::OPNOTSUPP),
        ("hello as operation", Start { op: Op::HELLO.0, ..good }, Errno::OPNOTSUPP),
        ("unknown flag", Start { flags: 1 << 31, ..good }, Errno::INVAL),
        ("flag on a list", Start { op: Op::LIST.0, target: 0, end: 0, flags: 1, ..good }, Errno::INVAL),
        ("unknown kind of table", Start { target: 9 << 56, ..good }, Errno::OPNOTSUPP),
        ("reserved bits of the target", Start { target: good.target | 1 << 20, ..good }, Errno::INVAL),
        ("reserved fields", Start { reserved: [1, 0], ..good }, Errno::INVAL),
    ];
    for (what, start, errno) in cases {
        refused(what, device.start(&start), errno)?;
    }
    vmm.end()?;
    check_nothing_broken(machine)
}

/// The commands, with arguments that are right but for what a test changes.
fn good_arguments() -> [(u32, Vec<u8>); 3] {
    let version = ABI_VERSION.to_bits();
    let start = Start { op: Op::LIST.0, target: 0, end: 0, ..dump_request(0) };
    [
        (HELLO, Hello { size: size_of::<Hello>() as u32, version, ..Hello::new_zeroed() }.as_bytes().to_vec()),
        (START, start.as_bytes().to_vec()),
        (ADVANCE, Advance { size: size_of::<Advance>() as u32, version, ..Advance::new_zeroed() }.as_bytes().to_vec()),
    ]
}

/// Room behind each argument, so that a larger size stays inside.
const ROOM_BYTES: usize = 256;

fn with_word(bytes: &[u8], word: usize, value: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[word * 4..][..4].copy_from_slice(&value.to_le_bytes());
    out.resize(bytes.len() + ROOM_BYTES, 0);
    out
}

fn bad_ioctl_size(machine: &Machine) -> Outcome {
    const SIZE_SHIFT: u32 = 16;
    let device = Device::open()?;
    for (command, bytes) in good_arguments() {
        let size = u32::try_from(bytes.len())?;
        let other = |size: u32| (command & !(0x3fff << SIZE_SHIFT)) | (size << SIZE_SHIFT);
        let ioctl = |command: u32, stated: u32| device.raw_ioctl(command, &mut with_word(&bytes, 0, stated));
        let name = format!("ioctl {command:#x}");
        refused(&format!("{name}, both larger"), ioctl(other(size + 8), size + 8), Errno::TOOBIG)?;
        refused(&format!("{name}, both smaller"), ioctl(other(size - 8), size - 8), Errno::INVAL)?;
        refused(&format!("{name}, none"), ioctl(other(0), 0), Errno::INVAL)?;
        refused(&format!("{name}, argument says larger"), ioctl(command, size + 8), Errno::TOOBIG)?;
        refused(&format!("{name}, argument says smaller"), ioctl(command, size - 8), Errno::INVAL)?;
        refused(&format!("{name}, argument says everything"), ioctl(command, u32::MAX), Errno::TOOBIG)?;
    }
    check_nothing_broken(machine)
}

fn bad_ioctl_version(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    let newer = AbiVersion { major: ABI_VERSION.major + 1, minor: 0 }.to_bits();
    let minor = AbiVersion { minor: ABI_VERSION.minor + 1, ..ABI_VERSION }.to_bits();
    for (command, bytes) in good_arguments() {
        let ioctl = |version: u32| device.raw_ioctl(command, &mut with_word(&bytes, 1, version));
        for version in [0, newer, u32::MAX] {
            refused(&format!("ioctl {command:#x}, version {version:#x}"), ioctl(version), Errno::PROTO)?;
        }
        ioctl(minor).with_context(|| format!("ioctl {command:#x} of a caller one minor version newer"))?;
    }
    check_nothing_broken(machine)
}

fn bad_ioctl_number(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    let mut argument = [0; ROOM_BYTES];
    for command in [0, HELLO ^ 0xff, HELLO ^ 0xff00, HELLO & 0xffff, (HELLO & 0x3fff_ffff) | 1 << 30] {
        refused(&format!("ioctl {command:#x}"), device.raw_ioctl(command, &mut argument), Errno::NOTTY)?;
    }
    check_nothing_broken(machine)
}

fn bad_advance(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    let idle = device.advance(0).context("ADVANCE before a start")?;
    ensure!(idle.filled == 0, "{idle:?}");
    refused("giving back what was never lent", device.advance(1).map(drop), Errno::INVAL)?;
    device.start(&Start { op: Op::LIST.0, target: 0, end: 0, ..dump_request(0) })?;
    let lent = device.advance(0)?.filled;
    refused("giving back one too many", device.advance(lent + 1).map(drop), Errno::INVAL)?;
    refused("giving back very many", device.advance(u32::MAX).map(drop), Errno::INVAL)?;
    device.advance(lent)?;
    check_nothing_broken(machine)
}

fn map_writable(machine: &Machine) -> Outcome {
    let device = Device::open_with(OpenOptions::new().read(true).write(true))?;
    let hello = device.hello()?;
    let length = hello.slots as usize * hello.slot_bytes as usize;
    for rights in [ProtFlags::READ | ProtFlags::WRITE, ProtFlags::WRITE, ProtFlags::READ | ProtFlags::EXEC] {
        let result = device.map_as(length, rights).map(drop);
        ensure!(matches!(result, Err(Errno::PERM | Errno::ACCESS)), "mmap with {rights:?}: {result:?}");
    }
    let mapping = device.map()?;
    for rights in [MprotectFlags::READ | MprotectFlags::WRITE, MprotectFlags::READ | MprotectFlags::EXEC] {
        refused("mprotect", mapping.protect(rights), Errno::ACCESS)?;
    }
    check_nothing_broken(machine)
}

fn map_elsewhere(machine: &Machine) -> Outcome {
    let device = Device::open()?;
    let hello = device.hello()?;
    let length = hello.slots as usize * hello.slot_bytes as usize;
    for wrong in [length + page_bytes() as usize, length * 2, 1 << 30] {
        let result = device.map_as(wrong, ProtFlags::READ).map(drop);
        ensure!(
            matches!(result, Err(Errno::INVAL | Errno::NXIO)),
            "mapping {wrong:#x} of {length:#x} bytes: {result:?}"
        );
    }
    // A mapping outlives its file, but not the session's memory.
    let mapping = device.map()?;
    drop(device);
    drop(mapping);
    check_nothing_broken(machine)
}

fn mixed_readers(machine: &Machine) -> Outcome {
    use std::io::Read as _;
    let mut device = Device::open()?;
    let mut page = [0; 4096];
    ensure!(device.file.read(&mut page).is_err(), "read(2) before a start");
    let list = Start { op: Op::LIST.0, target: 0, end: 0, ..dump_request(0) };
    device.start(&list)?;
    ensure!(device.file.read(&mut page)? > 0, "read(2) gave nothing");
    ensure!(device.advance(0).is_err(), "ADVANCE after read(2) of the same start");
    device.start(&list)?;
    device.advance(0)?;
    ensure!(device.file.read(&mut page).is_err(), "read(2) after ADVANCE of the same start");
    check_nothing_broken(machine)
}

fn program_usage(_: &Machine) -> Outcome {
    for arguments in [&["dump", "x1000"][..], &["fly"], &["dump", "vm:1", "--range", "5..1"], &[]] {
        program::run(arguments)?.fails(exit::USAGE_OR_IO, &[])?;
    }
    program::run(&["dump", "-i", "/nonexistent"])?.fails(exit::USAGE_OR_IO, &["/nonexistent"])?;
    Ok(())
}
