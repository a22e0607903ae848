// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules for what s2dump adds to EL2, one function each.

use super::a64::{flow, is_fp, names_x18, signs, stack, Flow, Stack};
use super::graph::{deepest, Node};
use super::image::{Program, Section};

/// The hypercall handler: where EL2 enters our code.
pub(crate) const ENTRY: &str = "handle___pkvm_s2dump";
/// A quarter of the hypervisor's one-page stack, shared with everything that leads to the handler.
const STACK_BYTES: u64 = 1024;
/// Text and read-only data. Not counted is what signs return addresses: whether it is there, the kernel's configuration says,
/// and in objects it always is.
const IMAGE_BYTES: u64 = 16 * 1024;

/// What the kernel's EL2 object provides that we may call or read, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("vm_table_lock", "guards the table of VMs while one is looked up"),
    ("get_vm_by_handle", "looks a VM up without taking a reference"),
    ("host_mmu", "the host's table, its registers and its lock"),
    ("pkvm_pgtable", "EL2's own table"),
    ("pkvm_pgd_lock", "guards EL2's own table"),
    ("hyp_pin_shared_mem", "proves that the host shares the slot page, and keeps it so"),
    ("hyp_unpin_shared_mem", "gives the slot page back before the call returns"),
    ("hyp_physvirt_offset", "from physical to EL2 addresses"),
    ("__hyp_vmemmap", "page states: which pages EL2 owns alone"),
    ("hyp_memory", "the regions of memory"),
    ("hyp_memblock_nr", "how many regions there are"),
    ("hyp_nr_cpus", "how many CPUs EL2 has"),
    ("__hyp_text_start", "where EL2's code is"),
    ("__hyp_text_end", "where EL2's code ends"),
    ("s2dump_pkvm_fixmap", "our own, in mm.c: what is static there"),
    ("s2dump_pkvm_fixblock", "our own, in mm.c"),
    ("s2dump_flavor_vms_read_lock", "our own, in pkvm.c of Android: what is static there"),
    ("s2dump_flavor_vms_read_unlock", "our own, in pkvm.c of Android"),
    ("s2dump_flavor_vm_of", "our own, in pkvm.c of Android"),
    ("kvm_protected_mode_initialized", "whether the host is deprivileged; code is patched by it"),
    ("id_aa64mmfr1_el1_sys_val", "the ID register that pKVM goes by"),
    ("addr_is_memory", "whether an address a table names is RAM"),
    ("memcpy", "what the compiler makes of copying a struct; no bound of ours to check"),
    ("memset", "what the compiler makes of clearing a struct"),
];

/// Parts of names that only panicking, formatting, unwinding or allocating code has.
const PANIC_NAMES: &[&str] = &[
    "panic",
    "unwrap_failed",
    "expect_failed",
    "slice_index",
    "len_mismatch",
    "4core3fmt",
    "unwind",
    "__ubsan_",
    "__rust_alloc",
    "handle_alloc_error",
];

/// Sections the kernel's EL2 link places; anything else is neither mapped nor relocated for EL2.
const KNOWN_SECTIONS: &[&str] = &[".text", ".rodata", ".data..ro_after_init"];
/// Sections that stay with the kernel at EL1, which reads them at boot.
const KERNEL_SECTIONS: &[(&str, &str)] = &[
    (".altinstructions", "atomic instructions chosen by CPU feature (hyp_spin_lock), patched by EL1 before EL2 starts"),
    ("__jump_table", "where code asks a static key, which EL1 patches before the host is deprivileged"),
    (".note.gnu.property", "says that the code has landing pads (BTI); the linker merges it"),
];

/// What one rule found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    /// The figure, good or bad.
    pub(crate) figure: String,
    /// Empty if the rule holds.
    pub(crate) violations: Vec<String>,
}

/// Applies all rules.
pub(crate) fn apply(program: &Program, nodes: &[Node]) -> Vec<Finding> {
    vec![
        entry(program),
        panics(program),
        undefined(program),
        fp_registers(program),
        indirect_branches(program),
        recursion(program, nodes),
        sections(program),
        writable(program),
        asks_mmu(program),
        stack_use(program, nodes),
        image(program),
    ]
}

/// The C side of each object that is shipped ([`crate::linux::objects`]), by what its names begin with, and what the
/// compiler calls.
const SHIPPED: [(&str, &[&str], &[&str]); 2] = [
    ("EL2", &["s2dump_el2_", "s2dump_pkvm_"], &["memcpy", "memset"]),
    ("EL1", &["s2dump_el1_", "s2dump_device_"], &["memcpy", "memset", "memcmp"]),
];

/// Applies what must hold of a shipped object by itself, before there is a kernel: that of EL2, or that of EL1.
pub(crate) fn apply_shipped(program: &Program, nodes: &[Node], index: usize) -> Vec<Finding> {
    vec![
        panics(program),
        shipped_undefined(program, SHIPPED[index]),
        fp_registers(program),
        x18(program),
        indirect_branches(program),
        recursion(program, nodes),
        sections(program),
        writable(program),
    ]
}

fn shipped_undefined(program: &Program, (level, prefixes, names): (&str, &[&str], &[&str])) -> Finding {
    let allowed = |name: &str| names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix));
    let violations = program.undefined.iter().filter(|name| !allowed(name));
    let violations = violations.map(|name| format!("{name} is not of the C side at {level}")).collect();
    let figure = format!("{} symbols of the C side at {level}", program.undefined.len());
    Finding { rule: "undefined", figure, violations }
}

fn entry(program: &Program) -> Finding {
    let is_there = program.functions.iter().any(|f| f.name == ENTRY);
    let violations = if is_there { vec![] } else { vec![format!("no function {ENTRY}: are these the right objects?")] };
    Finding { rule: "entry", figure: format!("{ENTRY}, {} functions", program.functions.len()), violations }
}

fn panics(program: &Program) -> Finding {
    let names = program.names.iter().filter(|name| PANIC_NAMES.iter().any(|part| name.contains(part)));
    let mut violations: Vec<_> = names.map(|name| format!("symbol {name}")).collect();
    let symbols = violations.len();
    let traps = code(program).filter(|(.., word)| flow(*word) == Flow::Trap);
    violations.extend(traps.map(|(s, at, word)| {
        format!("{}: {word:#010x} traps: a BUG, a WARN, a failed check or unreachable code", place(program, s, at))
    }));
    let traps = violations.len() - symbols;
    Finding {
        rule: "panic",
        figure: format!("{symbols} of {} symbols, {traps} traps", program.names.len()),
        violations,
    }
}

fn undefined(program: &Program) -> Finding {
    let allowed = |name: &str| ALLOWED.iter().any(|(allowed, _)| *allowed == name);
    let violations = program.undefined.iter().filter(|name| !allowed(name));
    let violations: Vec<_> =
        violations.map(|name| format!("{name} is undefined and not on the list of rules.rs")).collect();
    let used: Vec<_> = program.undefined.iter().filter(|name| allowed(name)).map(String::as_str).collect();
    Finding { rule: "undefined", figure: format!("{} allowed: {}", used.len(), used.join(", ")), violations }
}

fn fp_registers(program: &Program) -> Finding {
    let found = code(program).filter(|(.., word)| is_fp(*word));
    let violations: Vec<_> = found
        .map(|(s, at, word)| format!("{}: {word:#010x} uses an FP or SIMD register", place(program, s, at)))
        .collect();
    let total = code(program).count();
    Finding { rule: "fp", figure: format!("{} of {total} instructions", violations.len()), violations }
}

/// Of shipped objects only: what Kbuild compiles may use it in a kernel without shadow call stacks.
fn x18(program: &Program) -> Finding {
    let found = code(program).filter(|(.., word)| names_x18(*word));
    let violations: Vec<_> =
        found.map(|(s, at, word)| format!("{}: {word:#010x} names x18", place(program, s, at))).collect();
    Finding {
        rule: "x18",
        figure: format!("{} of {} instructions", violations.len(), code(program).count()),
        violations,
    }
}

fn indirect_branches(program: &Program) -> Finding {
    let found = code(program).filter(|(.., word)| matches!(flow(*word), Flow::Indirect { .. }));
    let violations: Vec<_> =
        found.map(|(s, at, word)| format!("{}: {word:#010x} branches to a register", place(program, s, at))).collect();
    let branches = code(program).filter(|(.., word)| flow(*word) != Flow::Next).count();
    Finding { rule: "indirect", figure: format!("{} of {branches} branches", violations.len()), violations }
}

/// The function that lets a table page be read, and the one instruction that asks the MMU.
const TABLE_PAGE: &str = "s2dump_el2_table_page";
const AT_S1E2R: u32 = 0xd50c_7800;
const MRS_PAR_EL1: u32 = 0xd538_7400;
const MSR_PAR_EL1: u32 = 0xd518_7400;
const WITHOUT_REGISTER: u32 = !0b1_1111;

/// A page is read only if EL2's own stage 1 maps it, and PAR_EL1, which is the host's or a guest's, is put back.
fn asks_mmu(program: &Program) -> Finding {
    let body = program.functions.iter().find(|function| function.name == TABLE_PAGE);
    let words: Vec<u32> = body.map_or_else(Vec::new, |f| {
        let section = program.sections.get(f.section).into_iter();
        section
            .flat_map(|section| section.words.range(f.start..f.end).map(|(_, word)| word & WITHOUT_REGISTER))
            .collect()
    });
    let asked = words.iter().position(|&word| word == AT_S1E2R);
    let violations = match asked.map(|at| words.split_at(at)) {
        None => vec![format!("{TABLE_PAGE} has no AT S1E2R")],
        Some((before, after)) => {
            let mut wrong = Vec::new();
            let mut want =
                |is_there: bool, what: &str| wrong.extend((!is_there).then(|| format!("{TABLE_PAGE}: {what}")));
            want(before.contains(&MRS_PAR_EL1), "PAR_EL1 is not saved before AT");
            want(after.contains(&MRS_PAR_EL1), "PAR_EL1 is not read after AT");
            want(after.contains(&MSR_PAR_EL1), "PAR_EL1 is not put back after AT");
            wrong
        }
    };
    let figure = format!("{TABLE_PAGE} asks by AT S1E2R: {}", if violations.is_empty() { "yes" } else { "no" });
    Finding { rule: "mmu", figure, violations }
}

fn recursion(program: &Program, nodes: &[Node]) -> Finding {
    let mut violations: Vec<_> =
        (0..nodes.len()).filter_map(|f| deepest(nodes, f).err()).map(|cycle| path(program, &cycle)).collect();
    violations.sort();
    violations.dedup();
    let calls: usize = nodes.iter().map(|node| node.calls.len() + node.outside.len()).sum();
    Finding { rule: "recursion", figure: format!("{} cycles in {calls} calls", violations.len()), violations }
}

fn sections(program: &Program) -> Finding {
    let mut violations = Vec::new();
    let mut kernel = Vec::new();
    for section in loaded(program) {
        if KERNEL_SECTIONS.iter().any(|(name, _)| *name == section.name) {
            kernel.push(format!("{} {}", section.name, section.size));
        } else if !KNOWN_SECTIONS.iter().any(|name| is_named(section, name)) && !is_data(section) {
            violations.push(format!("{}: section {} ({} bytes)", section.object, section.name, section.size));
        }
    }
    let figure = format!("{} loaded; for EL1 only: {}", loaded(program).count(), kernel.join(", "));
    Finding { rule: "sections", figure, violations }
}

fn writable(program: &Program) -> Finding {
    let is_gate = |section: &&Section| is_named(section, ".data..ro_after_init");
    let is_kernels = |section: &Section| KERNEL_SECTIONS.iter().any(|(name, _)| *name == section.name);
    let violations = loaded(program).filter(|s| s.is_writable && !is_gate(s) && !is_kernels(s));
    let violations: Vec<_> =
        violations.map(|s| format!("{}: {} has {} writable bytes", s.object, s.name, s.size)).collect();
    let gate: u64 = loaded(program).filter(is_gate).map(|s| s.size).sum();
    Finding { rule: "writable", figure: format!("0 bytes allowed; read-only after boot: {gate}"), violations }
}

fn stack_use(program: &Program, nodes: &[Node]) -> Finding {
    let mut violations: Vec<_> = nodes.iter().flat_map(|node| node.problems.iter().cloned()).collect();
    for (s, at, word) in code(program).filter(|(s, at, _)| program.function_at(*s, *at).is_none()) {
        // The call graph does not see alternatives, which lie behind the functions. So they must not move SP or call.
        if stack(word) != Stack::Same || matches!(flow(word), Flow::Call(_)) {
            violations.push(format!("{}: {word:#010x} moves SP or calls outside any function", place(program, s, at)));
        }
    }
    let all = (0..nodes.len()).filter_map(|f| deepest(nodes, f).ok());
    let most = all.max_by_key(|d| (d.bytes, d.path.len())).unwrap_or_default();
    if most.bytes > STACK_BYTES {
        violations.push(format!("{} bytes are {} too many", most.bytes, most.bytes - STACK_BYTES));
    }
    let shares = most.path.iter().map(|(f, bytes)| format!("{} {bytes}", shown(&program.functions[*f].name)));
    let figure = format!("{} of {STACK_BYTES} bytes: {}", most.bytes, shares.collect::<Vec<_>>().join(" -> "));
    Finding { rule: "stack", figure, violations }
}

fn image(program: &Program) -> Finding {
    let sum = |name: &str| loaded(program).filter(|s| is_named(s, name)).map(|s| s.size).sum::<u64>();
    let (text, rodata) = (sum(".text"), sum(".rodata"));
    let signing = 4 * code(program).filter(|(.., word)| signs(*word)).count() as u64;
    let total = text + rodata - signing;
    let violations =
        if total > IMAGE_BYTES { vec![format!("{total} bytes are {} too many", total - IMAGE_BYTES)] } else { vec![] };
    Finding {
        rule: "size",
        figure: format!("{total} of {IMAGE_BYTES} bytes: text {text} + rodata {rodata} - signing {signing}"),
        violations,
    }
}

fn loaded(program: &Program) -> impl Iterator<Item = &Section> {
    program.sections.iter().filter(|s| s.is_loaded && s.size > 0)
}

/// `.text` names `.text` and `.text.unlikely`, but not `.textual`.
fn is_named(section: &Section, name: &str) -> bool {
    section.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Judged by the rule `writable`.
fn is_data(section: &Section) -> bool {
    is_named(section, ".data") || is_named(section, ".bss")
}

/// Returns every instruction with its section and offset.
fn code(program: &Program) -> impl Iterator<Item = (usize, u64, u32)> + '_ {
    let sections = program.sections.iter().enumerate();
    sections.flat_map(|(i, section)| section.words.iter().map(move |(offset, word)| (i, *offset, *word)))
}

fn place(program: &Program, section: usize, offset: u64) -> String {
    match program.function_at(section, offset).map(|f| &program.functions[f]) {
        Some(function) => format!("{}+{:#x}", shown(&function.name), offset - function.start),
        None => format!("{} {}+{offset:#x}", program.sections[section].object, program.sections[section].name),
    }
}

fn path(program: &Program, functions: &[usize]) -> String {
    functions.iter().map(|f| shown(&program.functions[*f].name)).collect::<Vec<_>>().join(" -> ")
}

/// Returns the name as written in the source, generic arguments left out.
fn shown(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let is_method = name.starts_with('<'); // as in `<Type>::method`
    name.split("::<").next().filter(|_| !is_method).map_or(name.clone(), str::to_owned)
}
