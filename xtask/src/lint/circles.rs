// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules of a crate that import each other in a circle: none of them can be read or moved without the others.
//!
//! What counts are the `use` lines of a file that begin with `crate`, `super` or `self`, not those of modules within the
//! file. A module and one inside it are no circle: a parent shows what its children make, and they use what it has.

use std::collections::{BTreeMap, BTreeSet};

/// The path of a module within its crate, by words; the root has none.
type Module = Vec<String>;
/// The modules of a crate, and what each imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Returns a line for each crate among `files`, names with their texts, that has circles.
pub(super) fn find<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut crates = BTreeMap::<&str, BTreeMap<Module, &str>>::new();
    for (name, text) in files {
        let Some((of, path)) = name.strip_suffix(".rs").and_then(|name| name.split_once("src/")) else { continue };
        let mut module: Module = path.split('/').map(str::to_owned).collect();
        module.pop_if(|last| last == "mod" || ["lib", "main"].contains(&path));
        crates.entry(of).or_default().insert(module, text);
    }
    let mut found = Vec::new();
    for (of, texts) in crates {
        let is_module = |module: &Module| texts.contains_key(module);
        let imports = texts.iter().map(|(module, text)| (module.clone(), imported(module, text, is_module)));
        let names: Vec<String> = in_circles(imports.collect()).keys().map(|module| module.join("::")).collect();
        if !names.is_empty() {
            found.push(format!("{of}src: modules import each other in a circle: {}", names.join(", ")));
        }
    }
    found
}

/// Takes away whoever imports nobody that is left, or is imported by nobody that is left; returns who stays.
fn in_circles(mut imports: Imports) -> Imports {
    loop {
        let importing: BTreeSet<Module> = imports.keys().cloned().collect();
        let imported: BTreeSet<Module> = imports.values().flatten().cloned().collect();
        imports.retain(|module, of| imported.contains(module) && !of.is_disjoint(&importing));
        if imports.len() == importing.len() {
            return imports;
        }
    }
}

/// Returns what `module` imports according to its text.
fn imported(module: &Module, text: &str, is_module: impl Fn(&Module) -> bool) -> BTreeSet<Module> {
    let starts = text.match_indices("use ").map(|(at, word)| (at, at + word.len()));
    let starts = starts.filter(|(at, _)| {
        let before = text[..*at].rsplit('\n').next().unwrap_or_default();
        before.is_empty() || before.starts_with("pub") && before.ends_with([' ', ')'])
    });
    let trees = starts.filter_map(|(_, from)| text[from..].split(';').next());
    let mut found: BTreeSet<Module> =
        trees.flat_map(paths).filter_map(|path| place(module, &path, &is_module)).collect();
    found.retain(|other| !other.starts_with(module) && !module.starts_with(other));
    found
}

/// Returns the paths of a `use`, by words.
fn paths(tree: &str) -> Vec<Module> {
    let (mut paths, mut path, mut open, mut is_leaf) = (Vec::new(), Module::new(), Vec::new(), false);
    let spaced = tree.replace("::", " ").replace('{', " { ").replace('}', " } ").replace(',', " , ");
    for word in spaced.split_whitespace().chain([","]) {
        match word {
            "{" => open.push(path.len()),
            "," | "}" => {
                if std::mem::take(&mut is_leaf) {
                    paths.push(path.clone());
                }
                path.truncate(open.last().copied().unwrap_or_default());
                if word == "}" {
                    open.pop();
                }
            }
            word => {
                path.push(word.to_owned());
                is_leaf = true;
            }
        }
        is_leaf &= word != "{";
    }
    paths
}

/// Returns the module that has what `path`, written in `module`, names; none if it is of another crate.
fn place(module: &Module, path: &[String], is_module: impl Fn(&Module) -> bool) -> Option<Module> {
    let own = path.iter().take_while(|word| ["crate", "super", "self"].contains(&word.as_str())).count();
    let mut place = match path.first()?.as_str() {
        "crate" => Module::new(),
        _ if own == 0 => return None,
        _ => module.clone(),
    };
    let up = path.iter().take(own).filter(|word| *word == "super").count();
    place.truncate(place.len().saturating_sub(up));
    place.extend_from_slice(&path[own..]);
    // What is no module is in one.
    while !place.is_empty() && !is_module(&place) {
        place.pop();
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        find(files.iter().copied())
    }

    #[test]
    fn good_one_way() {
        assert!(circles(&[("x/src/a.rs", "use crate::b::B;\n"), ("x/src/b.rs", "use std::fs;\n")]).is_empty());
        assert!(circles(&[("x/src/a.rs", "use crate::b::B;\n"), ("y/src/b.rs", "use crate::a::A;\n")]).is_empty());
        let child =
            [("x/src/lib.rs", "use crate::a::A;\n"), ("x/src/a.rs", "use super::B;\nuse crate::c::{self, C};\n")];
        assert!(circles(&child).is_empty(), "a child and its parent");
        let test = [("x/src/a.rs", "use crate::b::B;\n"), ("x/src/b.rs", "mod tests {\n    use crate::a::A;\n}\n")];
        assert!(circles(&test).is_empty(), "a module within the file");
        let prefix =
            [("x/src/a/mod.rs", "use crate::b;\n"), ("x/src/a/c.rs", ""), ("x/src/b.rs", "use crate::a::{c::C};\n")];
        assert!(circles(&prefix).is_empty(), "the module, and not those on the way to it");
    }

    #[test]
    fn bad_circles() {
        for (a, b, long) in [
            ("use crate::b::B;\n", "use crate::a::A;\n", false),
            ("pub(crate) use super::b::B;\n", "pub use super::a;\n", false),
            (
                "use crate::{\n    c::C,\n    b::{self, B as D},\n};\n",
                "use std::{fs, io};\nuse self::super::a::A;\n",
                true,
            ),
            ("use super::c::C;\n", "use crate::a::{A, E};\n", true),
        ] {
            let found = circles(&[
                ("x/src/m/a.rs", &a.replace("crate", "crate::m")),
                ("x/src/m/b.rs", &b.replace("crate::", "crate::m::")),
                ("x/src/m/c.rs", "use super::b::B;\n"),
            ]);
            assert!(found.len() == 1 && found[0].starts_with("x/src: "), "{found:?}");
            assert_eq!(found[0].contains("m::c"), long, "{found:?}");
            assert!(found[0].contains(": m::a, m::b"), "{found:?}");
        }
    }
}
