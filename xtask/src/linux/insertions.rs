// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines s2dump adds to files of the kernel, and where.
//!
//! Every line names s2dump, and no kernel file does otherwise: so taking out all lines that name it gives back the
//! kernel's own file, and applying twice, or a newer version over an older one, is the same as applying once.

use anyhow::{bail, Result};

/// On which side of the anchor's line the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Above.
    Before,
    /// Below.
    After,
}

/// Lines to add to one place of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insertion {
    /// The file, from the top of the kernel tree.
    pub(crate) file: &'static str,
    /// Text that occurs exactly once in the file, within a line: no longer than it takes.
    pub(crate) anchor: &'static str,
    /// Where, seen from the anchor.
    pub(crate) side: Side,
    /// Whole lines. Each names s2dump.
    pub(crate) lines: &'static str,
}

/// Directory of our own files, from the top of the kernel tree.
pub(crate) const OWN_DIR: &str = "arch/arm64/kvm/s2dump";

/// All insertions, grouped by file.
pub(crate) const INSERTIONS: &[Insertion] = &[
    // Behind the last hypercall: in the band that exists only once the host has lost its rights.
    Insertion {
        file: "arch/arm64/include/asm/kvm_asm.h",
        anchor: "FUNC___pkvm_tlb_flush_vmid,",
        side: Side::After,
        lines: "#ifdef CONFIG_PKVM_S2DUMP\n\
                \t__KVM_HOST_SMCCC_FUNC___pkvm_s2dump,\n\
                #endif /* CONFIG_PKVM_S2DUMP */\n",
    },
    Insertion {
        file: "arch/arm64/kvm/hyp/nvhe/hyp-main.c",
        anchor: "#include <nvhe/trap_handler.h>",
        side: Side::After,
        lines: "#include \"../../s2dump/s2dump_el2.h\"\n",
    },
    Insertion {
        file: "arch/arm64/kvm/hyp/nvhe/hyp-main.c",
        anchor: "HANDLE_FUNC(__pkvm_tlb_flush_vmid),",
        side: Side::After,
        lines: "#ifdef CONFIG_PKVM_S2DUMP\n\
                \tHANDLE_FUNC(__pkvm_s2dump),\n\
                #endif /* CONFIG_PKVM_S2DUMP */\n",
    },
    // Before the list of objects is read.
    Insertion {
        file: "arch/arm64/kvm/hyp/nvhe/Makefile",
        anchor: "hyp-obj-y += $(lib-objs)",
        side: Side::After,
        lines: "include $(srctree)/arch/arm64/kvm/s2dump/Makefile.hyp\n",
    },
    Insertion {
        file: "arch/arm64/kvm/Makefile",
        anchor: "obj-$(CONFIG_KVM) += hyp/",
        side: Side::After,
        lines: "obj-$(CONFIG_PKVM_S2DUMP) += s2dump/\n",
    },
    // Inside `if KVM`.
    Insertion {
        file: "arch/arm64/kvm/Kconfig",
        anchor: "config NVHE_EL2_DEBUG",
        side: Side::Before,
        lines: "source \"arch/arm64/kvm/s2dump/Kconfig\"\n",
    },
    Insertion {
        file: "arch/arm64/kvm/ptdump.c",
        anchor: "#include <asm/ptdump.h>",
        side: Side::After,
        lines: "#include \"s2dump/s2dump_el1.h\"\n",
    },
    Insertion {
        file: "arch/arm64/kvm/ptdump.c",
        anchor: "debugfs_create_file(\"stage2_page_tables\"",
        side: Side::Before,
        lines: "\tif (s2dump_debugfs_create(kvm, stage2_pte_bits, ARRAY_SIZE(stage2_pte_bits)))\n\
                \t\treturn;\t/* s2dump made them */\n",
    },
];

/// Returns `text` without any line of ours: the kernel's own file.
pub(crate) fn without_ours(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.to_ascii_lowercase().contains("s2dump")).collect()
}

/// Returns the text of `file` with all of `insertions` that name it.
///
/// # Errors
///
/// If an anchor is not found exactly once; names file and anchor.
pub(crate) fn insert(file: &str, text: &str, insertions: &[Insertion]) -> Result<String> {
    let mut text = without_ours(text);
    for insertion in insertions.iter().filter(|insertion| insertion.file == file) {
        let mut found = text.match_indices(insertion.anchor);
        let (first, more) = (found.next(), found.count());
        let Some((at, _)) = first else {
            bail!(
                "{file}: no line has `{}`: s2dump does not know where to add its lines in this tree",
                insertion.anchor
            );
        };
        if more > 0 {
            bail!("{file}: `{}` occurs {} times, want once: ambiguous in this tree", insertion.anchor, more + 1);
        }
        let position = match insertion.side {
            Side::Before => text[..at].rfind('\n').map_or(0, |newline| newline + 1),
            Side::After => text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1),
        };
        text.insert_str(position, insertion.lines);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[Insertion] =
        &[Insertion { file: "f", anchor: "two", side: Side::After, lines: "s2dump 1\ns2dump 2\n" }];

    #[test]
    fn good_lines_name_s2dump_and_end() {
        for insertion in INSERTIONS {
            assert!(insertion.lines.ends_with('\n'), "{insertion:?}");
            assert!(insertion.lines.lines().all(|line| line.to_ascii_lowercase().contains("s2dump")), "{insertion:?}");
            assert!(!insertion.anchor.contains('\n'), "{insertion:?}");
        }
    }

    #[test]
    fn good_before_and_after() {
        assert_eq!(insert("f", "one\nand two.\nthree\n", ONE).unwrap(), "one\nand two.\ns2dump 1\ns2dump 2\nthree\n");
        let before = [Insertion { side: Side::Before, ..ONE[0] }];
        assert_eq!(insert("f", "one\nand two.\n", &before).unwrap(), "one\ns2dump 1\ns2dump 2\nand two.\n");
        assert_eq!(insert("g", "one\n", ONE).unwrap(), "one\n", "another file keeps its text");
    }

    #[test]
    fn good_twice_is_once_and_newer_replaces_older() {
        let once = insert("f", "one\ntwo\n", ONE).unwrap();
        assert_eq!(insert("f", &once, ONE).unwrap(), once);
        assert_eq!(insert("f", "one\nold S2DUMP\ntwo\nS2dump old\n", ONE).unwrap(), once);
    }

    #[test]
    fn bad_anchor_missing_or_twice_is_named() {
        for (text, want) in [("one\n", "no line has `two`"), ("two\ntwo\n", "`two` occurs 2 times")] {
            let error = insert("f", text, ONE).unwrap_err().to_string();
            assert!(error.starts_with("f: ") && error.contains(want), "{error}");
        }
    }
}
