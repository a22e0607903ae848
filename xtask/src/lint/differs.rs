// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel tree that encodes things in another way must not build: each constant of pKVM's that our records speak of
//! is changed in a copy of its header, and our file that asserts it is compiled against that copy.
//!
//! Compiles by the command that the kernel's build saved, so with its flags. Works on mainline trees; says so of
//! others.

use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::setup;
use anyhow::{ensure, Context, Result};
use std::path::Path;

/// Where the kernel's build keeps our objects, and the commands that made them.
const DIR: &str = "arch/arm64/kvm/s2dump";
/// The object whose source asserts the constants.
const OBJECT: &str = "s2dump_pkvm_el2.nvhe";
/// One that is compiled as the device of kernels without Rust would be.
const LIKE_DEVICE: &str = "s2dump_el1";
const DEVICE: &str = "linux/without-rust/s2dump_device.c";

/// A constant that another tree may have otherwise.
struct Change {
    /// The header, from the top of the kernel tree, and as it is included.
    header: &'static str,
    included: &'static str,
    /// Text in it, once, and what takes its place.
    from: &'static str,
    to: &'static str,
    /// What the compiler must name.
    named: &'static str,
}

const PGTABLE: (&str, &str) = ("arch/arm64/include/asm/kvm_pgtable.h", "asm/kvm_pgtable.h");
const PKVM: (&str, &str) = ("arch/arm64/include/asm/kvm_pkvm.h", "asm/kvm_pkvm.h");
const MEMORY: (&str, &str) = ("arch/arm64/kvm/hyp/include/nvhe/memory.h", "nvhe/memory.h");

const fn change(
    (header, included): (&'static str, &'static str),
    from: &'static str,
    to: &'static str,
    named: &'static str,
) -> Change {
    Change { header, included, from, to, named }
}

const ASM: (&str, &str) = ("arch/arm64/include/asm/kvm_asm.h", "asm/kvm_asm.h");
const PROTECT: (&str, &str) = ("arch/arm64/kvm/hyp/include/nvhe/mem_protect.h", "nvhe/mem_protect.h");

const CHANGES: [Change; 19] = [
    change(
        PGTABLE,
        "\tKVM_GUEST_INVALID_PTE_TYPE_POISONED,",
        "\tKVM_OTHER,\n\tKVM_GUEST_INVALID_PTE_TYPE_POISONED,",
        "POISONED",
    ),
    change(PGTABLE, "KVM_INVALID_PTE_TYPE_LOCKED\t= 1,", "KVM_INVALID_PTE_TYPE_LOCKED\t= 5,", "LOCKED"),
    change(PGTABLE, "KVM_PTE_LEAF_ATTR_HI_S2_XN\tGENMASK(54, 53)", "KVM_PTE_LEAF_ATTR_HI_S2_XN\tBIT(54)", "S2_XN"),
    change(PGTABLE, "KVM_PGTABLE_PROT_SW1\t\t\t= BIT(56)", "KVM_PGTABLE_PROT_SW1\t\t\t= BIT(57)", "PROT_MASK"),
    change(
        PGTABLE,
        "KVM_PTE_LEAF_ATTR_HI_SW\t\tGENMASK(58, 55)",
        "KVM_PTE_LEAF_ATTR_HI_SW\t\tGENMASK(58, 56)",
        "HI_SW",
    ),
    change(
        PGTABLE,
        "KVM_INVALID_PTE_TYPE_MASK\tGENMASK(63, 60)",
        "KVM_INVALID_PTE_TYPE_MASK\tGENMASK(63, 61)",
        "TYPE_MASK",
    ),
    change(PGTABLE, "\tKVM_HOST_INVALID_PTE_TYPE_DONATION,", "\tKVM_HOST_INVALID_PTE_TYPE_DONATION = 7,", "DONATION"),
    change(
        ASM,
        "\tMARKER(__KVM_HOST_SMCCC_FUNC_PKVM_ONLY),",
        "\t__KVM_HOST_SMCCC_FUNC_PKVM_ONLY = 4000, __s2dump_back = 20,",
        "PKVM_ONLY",
    ),
    change(PROTECT, "\tPKVM_ID_HYP,", "\tPKVM_ID_HYP = 5,", "PKVM_ID_HYP"),
    change(MEMORY, "PKVM_PAGE_OWNED\t\t\t= 0ULL", "PKVM_PAGE_OWNED\t\t\t= 4ULL", "PKVM_PAGE_OWNED"),
    change(
        MEMORY,
        "PKVM_PAGE_SHARED_OWNED\t\t= BIT(0)",
        "PKVM_PAGE_SHARED_OWNED\t\t= BIT(2)",
        "PKVM_PAGE_SHARED_OWNED",
    ),
    change(MEMORY, "PKVM_NOPAGE\t\t\t= BIT(0) | BIT(1)", "PKVM_NOPAGE\t\t\t= BIT(3)", "PKVM_NOPAGE"),
    change(PKVM, "#define KVM_MAX_PVMS 255", "#define KVM_MAX_PVMS 511", "KVM_MAX_PVMS"),
    change(MEMORY, "\tu16 refcount;", "\tu8 refcount;", "refcount"),
    change(MEMORY, "\tu8 order;", "\tu8 other, order;", "order"),
    change(MEMORY, "\tunsigned __host_state : 4;", "\tunsigned __host_state : 2;", "s2dump_flavor_frame_of"),
    change(
        MEMORY,
        "__hyp_state_comp = state ^ PKVM_PAGE_STATE_VMEMMAP_MASK",
        "__hyp_state_comp = state",
        "s2dump_flavor_frame_of",
    ),
    change(MEMORY, "\tu32 host_share_guest_count;", "\tu16 host_share_guest_count;", "host_share_guest_count"),
    change(MEMORY, "PKVM_PAGE_SHARED_BORROWED\t= BIT(1)", "PKVM_PAGE_SHARED_BORROWED\t= BIT(2)", "SHARED_BORROWED"),
];

/// Checks that each change is noticed, and that nothing is noticed without one.
///
/// # Errors
///
/// What was not noticed, or that the kernel cannot be looked at.
pub(crate) fn check(ctx: &Ctx, kernel: &Kernel) -> Result<()> {
    let compile = &saved_command(kernel, OBJECT)?;
    let dir = tempfile::tempdir()?;
    ensure!(errors(ctx, kernel, compile, dir.path())?.is_empty(), "our file does not build as it is");
    for change in &CHANGES {
        let path = kernel.build.with_file_name("source").join(change.header);
        let header = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let count = header.matches(change.from).count();
        ensure!(count == 1, "{}: `{}` occurs {count} times, want once", change.header, change.from);
        let copy = dir.path().join(change.included);
        std::fs::create_dir_all(copy.parent().context("a directory")?)?;
        std::fs::write(&copy, header.replace(change.from, change.to))?;
        let errors = errors(ctx, kernel, compile, dir.path())?;
        let is_assertion = |line: &str| line.contains("static assertion") || line.contains("BUILD_BUG_ON failed");
        let is_noticed = errors.lines().any(|line| is_assertion(line) && line.contains(change.named));
        ensure!(is_noticed, "{}: with `{}` our file still builds:\n{errors}", change.header, change.to);
        std::fs::remove_file(copy)?;
    }
    println!("lint: differs    {} of {} changes of pKVM's constants fail the build", CHANGES.len(), CHANGES.len());
    Ok(())
}

/// Checks that the device in C compiles in a kernel that has the one in Rust, too.
///
/// # Errors
///
/// What the compiler says of it, or that the kernel cannot be looked at.
pub(crate) fn check_device(ctx: &Ctx, kernel: &Kernel) -> Result<()> {
    let saved = saved_command(kernel, LIKE_DEVICE)?;
    let source = kernel.build.with_file_name("source").join(DIR).join(LIKE_DEVICE).with_extension("c");
    let compile = saved.replace(&source.display().to_string(), &ctx.root.join(DEVICE).display().to_string());
    ensure!(compile != saved, "{} is not in the saved command", source.display());
    let errors = errors(ctx, kernel, &compile, tempfile::tempdir()?.path())?;
    ensure!(errors.is_empty(), "{DEVICE} does not compile:\n{errors}");
    Ok(())
}

/// Returns the command that made an object.
fn saved_command(kernel: &Kernel, object: &str) -> Result<String> {
    let saved = kernel.build.join(DIR).join(format!(".{object}.o.cmd"));
    let text = std::fs::read_to_string(&saved).with_context(|| format!("cannot read {}", saved.display()))?;
    let compile = text.lines().next().and_then(|line| Some(line.split_once(":= ")?.1)).context("no saved command")?;
    Ok(compile.to_owned())
}

/// Compiles with the headers of `dir` before the kernel's; returns what the compiler says.
fn errors(ctx: &Ctx, kernel: &Kernel, compile: &str, dir: &Path) -> Result<String> {
    let (program, arguments) = compile.split_once(" -I").context("no include directory in the saved command")?;
    let out = dir.join("out.o");
    let line = format!("{program} -I{} -I{arguments} -o {}", dir.display(), out.display());
    let mut shell = setup::kernel_command(ctx, "sh")?;
    let output = shell.current_dir(&kernel.build).args(["-c", &line]).output()?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}
