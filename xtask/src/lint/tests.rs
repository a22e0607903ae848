// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each rule is broken by a small object made here, instruction by instruction, and must say so.

use super::rules::{apply, apply_shipped, Finding, ENTRY};
use super::{graph, image::Program};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    elf, Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use std::collections::BTreeMap;

const BL: u32 = 0x9400_0000;
const B: u32 = 0x1400_0000;
const RET: u32 = 0xd65f_03c0;
const NOP: u32 = 0xd503_201f;
const PACIASP: u32 = 0xd503_233f;
const AUTIASP: u32 = 0xd503_23bf;
const PUSH_16: u32 = 0xa9bf_7bfd; // stp x29, x30, [sp, #-16]!
const POP_16: u32 = 0xa8c1_7bfd; // ldp x29, x30, [sp], #16
const SUB_SP_512: u32 = 0xd108_03ff;
const ADD_SP_512: u32 = 0x9108_03ff;

/// An object under construction.
struct Builder {
    object: Object<'static>,
    text: SectionId,
    symbols: BTreeMap<String, SymbolId>,
}

impl Builder {
    fn new() -> Self {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
        let text = object.section_id(object::write::StandardSection::Text);
        Self { object, text, symbols: BTreeMap::new() }
    }

    fn symbol(&mut self, name: &str) -> SymbolId {
        *self.symbols.entry(name.to_owned()).or_insert_with(|| {
            self.object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            })
        })
    }

    /// Adds a function; each `bl` or `b` with no displacement gets a relocation to the next of `callees`.
    fn function(mut self, name: &str, words: &[u32], callees: &[&str]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let symbol = self.symbol(name);
        let start = self.object.add_symbol_data(symbol, self.text, &bytes, 4);
        let mut callees = callees.iter();
        for (word, at) in words.iter().zip((start..).step_by(4)) {
            let r_type = match *word {
                BL => elf::R_AARCH64_CALL26,
                B => elf::R_AARCH64_JUMP26,
                _ => continue,
            };
            let symbol = self.symbol(callees.next().expect("a callee for each relocated branch"));
            let flags = RelocationFlags::Elf { r_type };
            self.object.add_relocation(self.text, Relocation { offset: at, symbol, addend: 0, flags }).unwrap();
        }
        self
    }

    /// Adds words behind the functions, as alternatives are (`$x`), or as data between code (`$d`).
    fn loose(mut self, mark: &str, words: &[u32]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let value = self.object.append_section_data(self.text, &bytes, 4);
        self.object.add_symbol(Symbol {
            name: mark.as_bytes().to_vec(),
            value,
            size: 0,
            kind: SymbolKind::Label,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Section(self.text),
            flags: SymbolFlags::None,
        });
        self
    }

    fn section(mut self, name: &str, kind: SectionKind, bytes: u64) -> Self {
        let id = self.object.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        if kind == SectionKind::UninitializedData {
            self.object.append_section_bss(id, bytes, 8);
        } else {
            self.object.append_section_data(id, &vec![0; usize::try_from(bytes).unwrap()], 8);
        }
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.object.write().unwrap()
    }
}

/// An entry that calls `callees` one after the other with 16 bytes on the stack.
fn entry(callees: &[&str]) -> Builder {
    let calls = vec![BL; callees.len()];
    let words = [&[PACIASP, PUSH_16][..], &calls, &[POP_16, AUTIASP, RET]].concat();
    Builder::new().function(ENTRY, &words, callees)
}

/// `mrs x1, par_el1`, `at s1e2r, x0`, `mrs x0, par_el1`, `msr par_el1, x1`.
const ASKS: [u32; 4] = [0xd538_7401, 0xd50c_7800, 0xd538_7400, 0xd518_7401];

/// Applies all rules but that about the MMU, which wants one function of its own.
fn check(objects: Vec<Vec<u8>>) -> Vec<Finding> {
    check_all(objects).into_iter().filter(|finding| finding.rule != "mmu").collect()
}

fn check_all(objects: Vec<Vec<u8>>) -> Vec<Finding> {
    let named: Vec<_> = objects.into_iter().zip(1..).map(|(bytes, n)| (format!("{n}.o"), bytes)).collect();
    let program = Program::parse(&named).unwrap();
    apply(&program, &graph::nodes(&program))
}

/// Asserts that this rule is broken, and no other, and returns its figure and first violation.
#[track_caller]
fn assert_breaks(rule: &str, objects: Vec<Vec<u8>>) -> (String, String) {
    let findings = check(objects);
    let broken: Vec<_> = findings.iter().filter(|f| !f.violations.is_empty()).collect();
    assert_eq!(broken.iter().map(|f| f.rule).collect::<Vec<_>>(), [rule], "{broken:#?}");
    (broken[0].figure.clone(), broken[0].violations[0].clone())
}

#[track_caller]
fn figure(rule: &str, objects: Vec<Vec<u8>>) -> String {
    let findings = check(objects);
    assert!(findings.iter().all(|f| f.violations.is_empty()), "{findings:#?}");
    findings.into_iter().find(|f| f.rule == rule).unwrap().figure
}

#[test]
fn good_pair_of_objects_resolves_each_other() {
    let c = entry(&["rust"]).section(".altinstructions", SectionKind::ReadOnlyData, 12).bytes();
    let rust = Builder::new().function("rust", &[SUB_SP_512, ADD_SP_512, RET], &[]).bytes();
    assert_eq!(figure("stack", vec![c.clone(), rust.clone()]), format!("528 of 1024 bytes: {ENTRY} 16 -> rust 512"));
    assert_eq!(figure("size", vec![c, rust]), "28 of 16384 bytes: text 36 + rodata 0 - signing 8");
}

#[test]
fn good_prefixed_names() {
    let objects = vec![Builder::new().function(&format!("__kvm_nvhe_{ENTRY}"), &[RET], &[]).bytes()];
    assert_eq!(figure("entry", objects), format!("{ENTRY}, 1 functions"));
}

#[test]
fn good_tail_call_costs_nothing() {
    let object = Builder::new()
        .function(ENTRY, &[PUSH_16, POP_16, B], &["next"])
        .function("next", &[SUB_SP_512, ADD_SP_512, RET], &[])
        .bytes();
    assert_eq!(figure("stack", vec![object]), format!("512 of 1024 bytes: {ENTRY} 0 -> next 512"));
}

#[test]
fn good_data_between_code_is_no_code() {
    let object = entry(&[]).loose("$d", &[0xd61f_0100, 0x3dc0_0000, 0]).bytes();
    assert_eq!(figure("fp", vec![object]), "0 of 5 instructions");
}

#[test]
fn good_alternatives_are_plain_instructions() {
    let object = entry(&[]).loose("$x.1", &[0xb8e0_0020, NOP]).bytes(); // ldaddal w0, w0, [x1]
    assert_eq!(figure("fp", vec![object]), "0 of 7 instructions");
}

#[test]
fn bad_alternatives_that_call_or_move_sp() {
    for word in [BL | 2, SUB_SP_512] {
        let (_, violation) = assert_breaks("stack", vec![entry(&[]).loose("$x", &[word, NOP]).bytes()]);
        assert!(violation.contains("outside any function"), "{violation}");
    }
}

#[test]
fn bad_no_entry() {
    assert_breaks("entry", vec![Builder::new().function("other", &[RET], &[]).bytes()]);
}

#[test]
fn bad_panicking_symbol() {
    let name = "_RNvNtCs123_4core9panicking5panic";
    let object = entry(&[name]).function(name, &[RET], &[]).bytes();
    assert_eq!(assert_breaks("panic", vec![object]).1, format!("symbol {name}"));
}

#[test]
fn bad_formatting_symbol() {
    let name = "_RNvMs_NtCs123_4core3fmtNtB4_9Formatter3pad";
    assert_breaks("panic", vec![entry(&[name]).function(name, &[RET], &[]).bytes()]);
}

#[test]
fn bad_brk() {
    let object = entry(&["check"]).function("check", &[0xb400_0040, 0xd420_0020, RET], &[]).bytes();
    assert!(assert_breaks("panic", vec![object]).1.starts_with("check+0x4: 0xd4200020 traps"));
}

#[test]
fn bad_undefined_symbol() {
    assert!(assert_breaks("undefined", vec![entry(&["printk"]).bytes()]).1.starts_with("printk is undefined"));
}

#[test]
fn bad_simd_register() {
    let object = entry(&["f"]).function("f", &[0x3dc0_0000, RET], &[]).bytes();
    assert_breaks("fp", vec![object]);
}

#[test]
fn bad_indirect_branches() {
    for (word, rest) in [(0xd63f_0100, RET), (0xd61f_0100, NOP), (0xd73f_0901, RET), (0xd65f_0020, NOP)] {
        assert_breaks("indirect", vec![entry(&["f"]).function("f", &[word, rest], &[]).bytes()]);
    }
}

#[test]
fn bad_recursion_through_two_objects() {
    let c = entry(&["a"]).function("b", &[PUSH_16, BL, POP_16, RET], &["a"]).bytes();
    let rust = Builder::new().function("a", &[PUSH_16, BL, POP_16, RET], &["b"]).bytes();
    let (figure, violation) = assert_breaks("recursion", vec![c, rust]);
    assert!(figure.starts_with("2 cycles") && violation == "a -> b -> a", "{figure}: {violation}");
}

#[test]
fn bad_recursion_without_relocation() {
    let object = Builder::new().function(ENTRY, &[PUSH_16, BL | 0x03ff_ffff, POP_16, RET], &[]).bytes();
    // `bl .-4` goes to the function's own start.
    assert_breaks("recursion", vec![object]);
}

#[test]
fn good_mmu_is_asked() {
    let words = [&ASKS[..], &[RET]].concat();
    let findings = check_all(vec![entry(&[]).function("s2dump_el2_table_page", &words, &[]).bytes()]);
    assert!(findings.iter().all(|finding| finding.violations.is_empty()), "{findings:#?}");
}

#[test]
fn bad_mmu_not_asked() {
    for left_out in 0..ASKS.len() {
        let mut words = ASKS.to_vec();
        words.remove(left_out);
        words.push(RET);
        let findings =
            check_all(vec![entry(&["s2dump_el2_table_page"]).function("s2dump_el2_table_page", &words, &[]).bytes()]);
        assert!(
            findings.iter().any(|f| f.rule == "mmu" && !f.violations.is_empty()),
            "without {left_out}: {findings:#?}"
        );
    }
    assert!(check_all(vec![entry(&[]).bytes()]).iter().any(|f| f.rule == "mmu" && !f.violations.is_empty()));
}

#[test]
fn bad_sections() {
    for name in [".got", ".init_array", ".eh_frame", ".ctors", "__bug_table", ".textual"] {
        let object = entry(&[]).section(name, SectionKind::ReadOnlyData, 8).bytes();
        assert_eq!(assert_breaks("sections", vec![object]).1, format!("1.o: section {name} (8 bytes)"));
    }
}

#[test]
fn bad_writable_statics() {
    for (name, kind) in [(".data", SectionKind::Data), (".bss", SectionKind::UninitializedData)] {
        let object = entry(&[]).section(name, kind, 8).bytes();
        assert_eq!(assert_breaks("writable", vec![object]).1, format!("1.o: {name} has 8 writable bytes"));
    }
}

#[test]
fn bad_relocated_constants_become_writable() {
    assert_breaks("writable", vec![entry(&[]).section(".data.rel.ro.table", SectionKind::Data, 8).bytes()]);
}

#[test]
fn good_gate_is_read_only_after_boot() {
    let object = entry(&[]).section(".data..ro_after_init", SectionKind::Data, 1).bytes();
    assert_eq!(figure("writable", vec![object]), "0 bytes allowed; read-only after boot: 1");
}

#[test]
fn stack_limit_is_exact() {
    let deep = |frames: &[u32], pops: &[u32]| [frames, pops, &[RET]].concat();
    let limit = deep(&[SUB_SP_512, SUB_SP_512], &[ADD_SP_512, ADD_SP_512]);
    let object = Builder::new().function(ENTRY, &limit, &[]).bytes();
    assert_eq!(figure("stack", vec![object]), format!("1024 of 1024 bytes: {ENTRY} 1024"));
    let over = entry(&["f"]).function("f", &limit, &[]).bytes();
    assert_eq!(assert_breaks("stack", vec![over]).1, "1040 bytes are 16 too many");
}

#[test]
fn bad_dynamic_stack() {
    let object = entry(&["f"]).function("f", &[0xcb20_63ff, RET], &[]).bytes(); // sub sp, sp, x0
    assert_eq!(assert_breaks("stack", vec![object]).1, "f+0x0: sets SP by a computed amount");
}

#[test]
fn bad_stack_grows_in_a_loop() {
    let object = entry(&["f"]).function("f", &[PUSH_16, 0xb5ff_ffe0, POP_16, RET], &[]).bytes(); // cbnz x0, .-4
    assert!(assert_breaks("stack", vec![object]).1.contains("reached with"));
}

#[test]
fn bad_return_without_pop() {
    let object = entry(&["f"]).function("f", &[PUSH_16, RET], &[]).bytes();
    assert_eq!(assert_breaks("stack", vec![object]).1, "f+0x4: returns with 16 bytes on the stack");
}

#[test]
fn size_limit_is_exact() {
    let object = |rodata| entry(&[]).section(".rodata", SectionKind::ReadOnlyData, rodata).bytes();
    assert_eq!(figure("size", vec![object(16372)]), "16384 of 16384 bytes: text 20 + rodata 16372 - signing 8");
    assert_eq!(assert_breaks("size", vec![object(16373)]).1, "16385 bytes are 1 too many");
}

/// Shipped objects are for kernels with a shadow call stack too.
#[test]
fn bad_x18_in_a_shipped_object() {
    let object = Builder::new().function("f", &[0x9100_0012, RET], &[]).bytes(); // add x18, x0, #0
    let program = Program::parse(&[("a.o".to_owned(), object)]).expect("an object");
    let findings = apply_shipped(&program, &graph::nodes(&program), 0);
    let found = findings.into_iter().find(|finding| finding.rule == "x18").expect("the rule");
    assert_eq!(
        (found.figure.as_str(), found.violations),
        ("1 of 2 instructions", vec!["f+0x0: 0x91000012 names x18".to_owned()])
    );
}

/// By itself an object may need only what its C side begins with.
#[test]
fn bad_shipped_object_needs_what_is_not_there() {
    let findings = |callee: &str, index| {
        let object = Builder::new().function("f", &[B], &[callee]).bytes();
        let program = Program::parse(&[("a.o".to_owned(), object)]).expect("an object");
        let findings = apply_shipped(&program, &graph::nodes(&program), index);
        findings.into_iter().flat_map(|finding| finding.violations).collect::<Vec<_>>()
    };
    for (good, index) in
        [("s2dump_el2_a", 0), ("s2dump_pkvm_a", 0), ("memset", 0), ("s2dump_device_a", 1), ("memcmp", 1)]
    {
        assert_eq!(findings(good, index), Vec::<String>::new(), "{good}");
    }
    for (bad, index, level) in [("memcmp", 0, "EL2"), ("s2dump_el1_call", 0, "EL2"), ("s2dump_el2_counter", 1, "EL1")] {
        assert_eq!(findings(bad, index), [format!("{bad} is not of the C side at {level}")]);
    }
}

#[test]
fn good_static_key_is_the_kernels() {
    let object = entry(&[]).section("__jump_table", SectionKind::Data, 16).bytes();
    assert_eq!(figure("writable", vec![object.clone()]), "0 bytes allowed; read-only after boot: 0");
    assert!(figure("sections", vec![object]).contains("__jump_table 16"));
}
