// SPDX-License-Identifier: MIT OR Apache-2.0
//! The EL2 objects, read together as one program: sections, functions, and which function a relocation calls.
//!
//! A symbol that one object leaves undefined and another defines is resolved, as the kernel's partial link does later.
//! The prefix that the kernel gives EL2 symbols is removed, so objects can be read before or after the kernel adds it.

use anyhow::{bail, ensure, Context, Result};
use object::read::elf::ElfFile64;
use object::{elf, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags, SymbolIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const EL2_PREFIX: &str = "__kvm_nvhe_";
const BRANCH_RELOCATIONS: [elf::RelocationType; 4] =
    [elf::R_AARCH64_CALL26, elf::R_AARCH64_JUMP26, elf::R_AARCH64_CONDBR19, elf::R_AARCH64_TSTBR14];

/// A section that is loaded or that matters by its name.
#[derive(Debug)]
pub(crate) struct Section {
    /// File name of the object, for messages.
    pub(crate) object: String,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) is_loaded: bool,
    pub(crate) is_writable: bool,
    pub(crate) is_code: bool,
    /// Instruction words by offset, data between code left out. Empty unless code.
    pub(crate) words: BTreeMap<u64, u32>,
    /// What the branch at an offset goes to, where a relocation says it.
    pub(crate) branches: BTreeMap<u64, Callee>,
}

/// A function, alone at its place; aliases are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Index in [`Program::sections`].
    pub(crate) section: usize,
    pub(crate) start: u64,
    /// First offset after it.
    pub(crate) end: u64,
}

/// Where a branch goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Callee {
    /// A place in a section of the program.
    Place { section: usize, offset: u64 },
    /// A symbol the program does not define.
    Outside(String),
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) sections: Vec<Section>,
    pub(crate) functions: Vec<Function>,
    /// Undefined in one object and defined in none.
    pub(crate) undefined: BTreeSet<String>,
    /// Every name any object mentions.
    pub(crate) names: BTreeSet<String>,
}

impl Program {
    /// Reads objects from files.
    ///
    /// # Errors
    ///
    /// If one cannot be read or is no AArch64 object.
    pub(crate) fn read(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut objects = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            objects.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes));
        }
        Self::parse(&objects)
    }

    /// Reads objects, each a name for messages and its bytes.
    ///
    /// # Errors
    ///
    /// If one is no AArch64 object, or is damaged.
    pub(crate) fn parse(objects: &[(String, Vec<u8>)]) -> Result<Self> {
        let mut program = Self::default();
        let mut globals = BTreeMap::new();
        let mut loaded = Vec::new();
        for (name, bytes) in objects {
            let elf: ElfFile64 = ElfFile64::parse(&**bytes).with_context(|| format!("{name}: not an ELF64 object"))?;
            ensure!(elf.architecture() == object::Architecture::Aarch64, "{name}: not for AArch64");
            let base = program.sections.len();
            program.add_sections(name, &elf)?;
            program.add_functions(base, &elf, &mut globals)?;
            loaded.push((name, base, elf));
        }
        for (name, base, elf) in &loaded {
            program.resolve(*base, elf, &globals).with_context(|| format!("{name}: relocations"))?;
        }
        Ok(program)
    }

    /// Returns the function that has the place.
    pub(crate) fn function_at(&self, section: usize, offset: u64) -> Option<usize> {
        self.functions.iter().position(|f| f.section == section && (f.start..f.end).contains(&offset))
    }

    fn add_sections(&mut self, object: &str, elf: &ElfFile64) -> Result<()> {
        for section in elf.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { bail!("{object}: sections without flags") };
            let has = |flag: elf::SectionFlags| sh_flags.0 & flag.0 != 0;
            let is_code = has(elf::SHF_EXECINSTR);
            let words = if is_code { code_words(elf, &section)? } else { BTreeMap::new() };
            self.sections.push(Section {
                object: object.to_owned(),
                name: section.name()?.to_owned(),
                size: section.size(),
                is_loaded: has(elf::SHF_ALLOC),
                is_writable: has(elf::SHF_WRITE),
                is_code,
                words,
                branches: BTreeMap::new(),
            });
        }
        Ok(())
    }

    fn add_functions(&mut self, base: usize, elf: &ElfFile64, globals: &mut BTreeMap<String, Callee>) -> Result<()> {
        let mut starts: BTreeMap<(usize, u64), (String, u64)> = BTreeMap::new();
        for symbol in elf.symbols() {
            let name = plain(symbol.name()?);
            if !name.is_empty() && !name.starts_with('$') {
                self.names.insert(name.clone());
            }
            let Some(section) = symbol.section_index().map(|i| base + i.0 - 1) else {
                continue;
            };
            if symbol.is_global() {
                globals.insert(name.clone(), Callee::Place { section, offset: symbol.address() });
            }
            let is_function = symbol.kind() == object::SymbolKind::Text && !name.starts_with('$');
            if is_function && self.sections[section].is_code {
                starts.entry((section, symbol.address())).or_insert((name, symbol.size()));
            }
        }
        let next: Vec<_> = starts.keys().copied().skip(1).map(Some).chain([None]).collect();
        for (((section, start), (name, size)), next) in starts.into_iter().zip(next) {
            let limit = next.filter(|n| n.0 == section).map_or(self.sections[section].size, |n| n.1);
            let end = if size == 0 { limit } else { start + size };
            self.functions.push(Function { name, section, start, end });
        }
        Ok(())
    }

    fn resolve(&mut self, base: usize, elf: &ElfFile64, globals: &BTreeMap<String, Callee>) -> Result<()> {
        let callee = |index: SymbolIndex, addend: i64| -> Result<Callee> {
            let symbol = elf.symbol_by_index(index)?;
            let place = match symbol.section_index() {
                Some(i) => Callee::Place { section: base + i.0 - 1, offset: symbol.address() },
                None => {
                    let name = plain(symbol.name()?);
                    globals.get(&name).cloned().unwrap_or(Callee::Outside(name))
                }
            };
            Ok(match place {
                Callee::Place { section, offset } => {
                    Callee::Place { section, offset: offset.wrapping_add_signed(addend) }
                }
                outside @ Callee::Outside(_) => outside,
            })
        };
        for symbol in elf.symbols().filter(|s| s.is_undefined()) {
            let name = plain(symbol.name()?);
            if !name.is_empty() && !globals.contains_key(&name) {
                self.undefined.insert(name);
            }
        }
        for (mine, section) in self.sections[base..].iter_mut().zip(elf.sections()).filter(|(mine, _)| mine.is_code) {
            for (offset, relocation) in section.relocations() {
                let (RelocationFlags::Elf { r_type }, RelocationTarget::Symbol(index)) =
                    (relocation.flags(), relocation.target())
                else {
                    continue;
                };
                if BRANCH_RELOCATIONS.contains(&r_type) {
                    mine.branches.insert(offset, callee(index, relocation.addend())?);
                }
            }
        }
        Ok(())
    }
}

fn plain(name: &str) -> String {
    name.strip_prefix(EL2_PREFIX).unwrap_or(name).to_owned()
}

/// Returns the instruction words of a code section, by its mapping symbols: `$x` begins code, `$d` data.
fn code_words(elf: &ElfFile64, section: &object::read::elf::ElfSection64<'_, '_>) -> Result<BTreeMap<u64, u32>> {
    let mut marks = BTreeMap::new();
    for symbol in elf.symbols().filter(|s| s.section_index() == Some(section.index())) {
        let name = symbol.name()?;
        let is_mark = |kind: &str| name == kind || name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'));
        if is_mark("$x") || is_mark("$d") {
            marks.insert(symbol.address(), is_mark("$x"));
        }
    }
    let is_code = |offset: u64| marks.range(..=offset).next_back().is_none_or(|(_, is_code)| *is_code);
    let data = section.data()?;
    let words = data.chunks_exact(4).zip((0..).step_by(4));
    Ok(words
        .filter(|(_, offset)| is_code(*offset))
        .map(|(bytes, offset)| (offset, u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
        .collect())
}
