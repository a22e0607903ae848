// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kinds of kernel tree that s2dump knows. What a tree contains tells its flavor, never its version number.
//!
//! A new flavor is one more entry of [`FLAVORS`] and a directory with its C files beside `linux/flavor-mainline/`.

use super::insertions::{Insertion, Side};
use anyhow::{bail, Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A kind of kernel tree.
#[derive(Debug)]
pub(crate) struct Flavor {
    /// What people call it.
    pub(crate) name: &'static str,
    /// The trees it is about, for people.
    pub(crate) about: &'static str,
    /// What tells it from every other flavor: it is that of a tree if all of these hold.
    pub(crate) tells: &'static [Probe],
    /// What our code takes for granted and the compiler cannot check: a tree of this flavor where one of these fails is
    /// refused.
    pub(crate) assumes: &'static [Probe],
    /// The lines it adds to the kernel's files, grouped by file.
    pub(crate) insertions: &'static [Insertion],
    /// Directory with its own files, from the top of this repository. They go where the common files go.
    pub(crate) files: &'static str,
    /// Whether its kernels cannot compile our Rust: then it is brought compiled.
    pub(crate) needs_objects: bool,
    /// File that lists how the configuration of its kernels differs from the usual one, from the top of this repository.
    pub(crate) config: Option<&'static str>,
}

/// A question to one file of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The file, from the top of the kernel tree.
    file: &'static str,
    /// Text to look for; it is within a line.
    text: &'static str,
    /// Whether the text must occur, or must not.
    want: Want,
    /// What it means if the answer is wrong.
    otherwise: &'static str,
}

/// The right answer to a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The text occurs. If not, the first line with this shorter text shows what is there instead.
    Present { or_show: &'static str },
    /// The text does not occur.
    Absent,
}

/// What the handles of VMs begin with, in all trees.
const FIRST_HANDLE: Probe = Probe {
    file: PKVM_C,
    text: "#define HANDLE_OFFSET 0x1000",
    want: Want::Present { or_show: "HANDLE_OFFSET" },
    otherwise: "the first VM has another handle than 0x1000 (abi::target::FIRST_HANDLE)",
};

/// All flavors, in the order in which they are tried.
pub(crate) const FLAVORS: &[Flavor] = &[
    Flavor {
        name: MAINLINE_NAME,
        about: "Linux 7.2 and later, and trees near to it",
        tells: &[
            Probe {
                file: PKVM_H,
                text: "struct pkvm_hyp_vm *get_vm_by_handle(",
                want: Want::Present { or_show: "get_vm_by_handle" },
                otherwise: "the lookup of a VM by its handle is not to be had outside of nvhe/pkvm.c",
            },
            Probe {
                file: PKVM_C,
                text: "DEFINE_HYP_RWLOCK(vm_table_lock)",
                want: Want::Absent,
                otherwise: "the lock of the VM table is a reader-writer lock, as in Android common kernels",
            },
            Probe {
                file: PGTABLE_H,
                text: "KVM_GUEST_INVALID_PTE_TYPE_POISONED",
                want: Want::Present { or_show: "INVALID_PTE" },
                otherwise: "invalid entries of a guest's table have other types",
            },
        ],
        assumes: &[
            FIRST_HANDLE,
            Probe {
                file: MEM_PROTECT_C,
                text: "KVM_HOST_DONATION_PTE_OWNER_MASK\tGENMASK(3, 1)",
                want: Want::Present { or_show: "KVM_HOST_DONATION_PTE_OWNER_MASK" },
                otherwise: "a donated page tells its owner in other bits than 3:1 (vmsa::pkvm)",
            },
        ],
        insertions: MAINLINE,
        files: "linux/flavor-mainline",
        needs_objects: false,
        config: None,
    },
    Flavor {
        name: "android16-6.12",
        about: "Android's common kernel android16-6.12, and trees made from it",
        tells: &[
            Probe {
                file: PKVM_C,
                text: "static DEFINE_HYP_RWLOCK(vm_table_lock)",
                want: Want::Present { or_show: "vm_table_lock" },
                otherwise: "the lock of the VM table is no reader-writer lock of nvhe/pkvm.c",
            },
            Probe {
                file: PKVM_H,
                text: "hyp_spinlock_t pgtable_lock;",
                want: Want::Present { or_show: "hyp_spinlock_t" },
                otherwise: "the table of a guest has another lock",
            },
            Probe {
                file: MEMORY_H,
                text: "enum pkvm_page_state host_state : 8;",
                want: Want::Present { or_show: "host_state" },
                otherwise: "what is kept about a page frame is another, as in Android common kernels after 6.12",
            },
            Probe {
                file: PGTABLE_H,
                text: "#define KVM_INVALID_PTE_MMIO_NOTE\tBIT(11)",
                want: Want::Present { or_show: "KVM_INVALID_PTE_MMIO_NOTE" },
                otherwise: "invalid entries of a guest's table have other types",
            },
        ],
        assumes: &[
            FIRST_HANDLE,
            // s2dump_flavor_el2.h asserts the values, and more.
            state("PKVM_PAGE_TAINTED\t\t= BIT(0) | BIT(1),", "PKVM_PAGE_TAINTED"),
            state("PKVM_MODULE_OWNED_PAGE\t\t= BIT(2),", "PKVM_MODULE_OWNED_PAGE"),
            state("PKVM_NOPAGE\t\t\t= BIT(3),", "PKVM_NOPAGE"),
        ],
        insertions: &ANDROID,
        files: "linux/flavor-android16-6.12",
        needs_objects: true,
        config: Some("xtask/kernel-android16-6.12.config"),
    },
];

/// The flavor that all of `xtask test` is about.
pub(crate) const MAINLINE_NAME: &str = "mainline";

const PKVM_H: &str = "arch/arm64/kvm/hyp/include/nvhe/pkvm.h";
const PKVM_C: &str = "arch/arm64/kvm/hyp/nvhe/pkvm.c";
const PGTABLE_H: &str = "arch/arm64/include/asm/kvm_pgtable.h";
const MEM_PROTECT_C: &str = "arch/arm64/kvm/hyp/nvhe/mem_protect.c";
const MEMORY_H: &str = "arch/arm64/kvm/hyp/include/nvhe/memory.h";

/// Returns the probe of a state of page frames in Android's kernels.
const fn state(text: &'static str, name: &'static str) -> Probe {
    let otherwise = "page frames have other states, or this one has another number";
    Probe { file: MEMORY_H, text, want: Want::Present { or_show: name }, otherwise }
}

/// The insertions of [mainline](FLAVORS).
const MAINLINE: &[Insertion] = &[
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
    // Behind what is static in this file.
    Insertion {
        file: "arch/arm64/kvm/hyp/nvhe/mm.c",
        anchor: "int hyp_create_fixmap(void)",
        side: Side::Before,
        lines: "#include \"../../s2dump/s2dump_pkvm_mm.c\"\n",
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

/// The insertions of [android16-6.12](FLAVORS): those of mainline, and one behind what is static in another file.
const ANDROID: [Insertion; MAINLINE.len() + 1] = {
    let mut all = [Insertion {
        file: PKVM_C,
        anchor: "*get_pkvm_hyp_vm(pkvm_handle_t handle)",
        side: Side::Before,
        lines: "#include \"../../s2dump/s2dump_flavor_vms.c\"\n",
    }; MAINLINE.len() + 1];
    let mut at = 0;
    while at < MAINLINE.len() {
        all[at] = MAINLINE[at];
        at += 1;
    }
    // Behind all other calls, which keep their numbers, and below those that modules add.
    all[0] = Insertion { anchor: "__KVM_HOST_SMCCC_FUNC___dynamic_hcalls", side: Side::Before, ..MAINLINE[0] };
    all
};

impl Probe {
    /// Returns the probe in words: what must be so.
    fn shown(&self) -> String {
        match self.want {
            Want::Present { .. } => format!("{} has `{}`", self.file, self.text),
            Want::Absent => format!("{} has no `{}`", self.file, self.text),
        }
    }

    /// Asks `tree`.
    ///
    /// # Errors
    ///
    /// Says what the file has instead, and what that means.
    fn check(&self, tree: &Path) -> Result<()> {
        let text = fs::read_to_string(tree.join(self.file))
            .with_context(|| format!("want: {}; the file cannot be read: {}", self.shown(), self.otherwise))?;
        let shown = |part: &str| {
            let (number, line) = text.lines().enumerate().find(|(_, line)| line.contains(part))?;
            Some(format!("line {} is `{}`", number + 1, line.trim()))
        };
        let found = shown(self.text);
        let instead = match self.want {
            Want::Present { .. } if found.is_some() => return Ok(()),
            Want::Absent if found.is_none() => return Ok(()),
            Want::Present { or_show } => shown(or_show).unwrap_or_else(|| format!("no line has `{or_show}`")),
            Want::Absent => found.unwrap_or_default(),
        };
        bail!("want: {}; {instead}: {}", self.shown(), self.otherwise)
    }
}

impl Flavor {
    /// Returns the files that get lines.
    pub(crate) fn anchored(&self) -> BTreeSet<&'static str> {
        self.insertions.iter().map(|insertion| insertion.file).collect()
    }
}

/// Returns the flavor of `tree`.
///
/// # Errors
///
/// If it has none that is known, or one that is told by its probes but not as our code takes it to be: with the probe
/// that failed.
pub(crate) fn of(tree: &Path) -> Result<&'static Flavor> {
    let mut failed = String::new();
    for flavor in FLAVORS {
        match flavor.tells.iter().try_for_each(|probe| probe.check(tree)) {
            Ok(()) => {
                let assumed = flavor.assumes.iter().try_for_each(|probe| probe.check(tree));
                return assumed.map(|()| flavor).with_context(|| {
                    format!("{}: told to be of flavor {}, but not as s2dump needs it", tree.display(), flavor.name)
                });
            }
            Err(error) => failed += &format!("\n  not {}: {error:#}", flavor.name),
        }
    }
    bail!("{}: a kind of kernel that s2dump does not know; nothing was changed{failed}", tree.display())
}

/// Returns every file of a tree that [`of`] or an insertion looks at.
pub(crate) fn looked_at() -> BTreeSet<&'static str> {
    let probed = |flavor: &Flavor| [flavor.tells, flavor.assumes].concat().into_iter().map(|probe| probe.file);
    FLAVORS.iter().flat_map(|flavor| flavor.anchored().into_iter().chain(probed(flavor))).collect()
}

/// Returns the table as text: each flavor, how it is told, what it needs, and what it brings.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for flavor in FLAVORS {
        text += &format!("{}: {}\n", flavor.name, flavor.about);
        let probes = |title: &str, probes: &[Probe]| {
            probes.iter().map(|probe| format!("  {title}: {}\n", probe.shown())).collect::<String>()
        };
        text += &probes("told by", flavor.tells);
        text += &probes("needs", flavor.assumes);
        let files = flavor.anchored();
        text += &format!("  adds lines to: {}\n", files.into_iter().collect::<Vec<_>>().join(", "));
        text += &format!("  own files: {}\n", flavor.files);
        text += &format!("  Rust: {}\n", if flavor.needs_objects { "objects" } else { "sources, or objects" });
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    /// Makes a tree that has nothing of a kernel but the lines that a flavor's probes and anchors look for.
    pub(crate) fn stub(flavor: &Flavor) -> TempDir {
        let tree = tempfile::tempdir().expect("temporary directory");
        let mut texts = BTreeMap::<&str, String>::new();
        let mut add = |file, line: &str| *texts.entry(file).or_insert_with(|| "first\n".to_owned()) += line;
        for insertion in flavor.insertions {
            add(insertion.file, &format!("\t{} more\nlast\n", insertion.anchor));
        }
        for probe in flavor.tells.iter().chain(flavor.assumes) {
            let present = matches!(probe.want, Want::Present { .. });
            add(probe.file, &if present { format!("{}\n", probe.text) } else { String::new() });
        }
        for (file, text) in texts {
            let path = tree.path().join(file);
            fs::create_dir_all(path.parent().expect("in a directory")).expect("directory");
            fs::write(path, text).expect("file");
        }
        tree
    }

    #[test]
    fn good_each_flavor_is_told() {
        for flavor in FLAVORS {
            assert_eq!(of(stub(flavor).path()).expect("known").name, flavor.name);
        }
    }

    #[test]
    fn bad_each_probe_that_fails_is_named() {
        for flavor in FLAVORS {
            for (probe, tells) in
                flavor.tells.iter().map(|probe| (probe, true)).chain(flavor.assumes.iter().map(|probe| (probe, false)))
            {
                let tree = stub(flavor);
                let path = tree.path().join(probe.file);
                let text = fs::read_to_string(&path).expect("file");
                let broken = match probe.want {
                    Want::Present { .. } => text.replace(probe.text, "something else"),
                    Want::Absent => format!("{text}{}\n", probe.text),
                };
                fs::write(&path, broken).expect("file");

                let error = format!("{:#}", of(tree.path()).expect_err("another tree"));

                assert!(error.contains(probe.file) && error.contains(probe.text), "{error}");
                assert!(error.contains(probe.otherwise), "{error}");
                assert!(error.contains(if tells { "does not know" } else { flavor.name }), "{error}");
            }
        }
    }

    #[test]
    fn bad_other_value_is_shown() {
        let tree = stub(&FLAVORS[0]);
        let path = tree.path().join(PKVM_C);
        let text = fs::read_to_string(&path).expect("file").replace("0x1000", "0x2000");
        fs::write(&path, text).expect("file");
        let error = format!("{:#}", of(tree.path()).expect_err("another first handle"));
        assert!(error.contains("line 2 is `#define HANDLE_OFFSET 0x2000`"), "{error}");
    }

    #[test]
    fn good_table_is_consistent() {
        let repo = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for flavor in FLAVORS {
            assert!(list().contains(flavor.name));
            for probe in flavor.tells.iter().chain(flavor.assumes) {
                assert!(!probe.text.contains('\n'), "{probe:?}");
                assert!(looked_at().contains(probe.file), "{probe:?}");
                // A probe must not answer differently once our lines are in.
                assert!(flavor.insertions.iter().all(|insertion| !insertion.lines.contains(probe.text)), "{probe:?}");
                if let Want::Present { or_show } = probe.want {
                    assert!(probe.text.contains(or_show), "{probe:?}");
                }
            }
            for insertion in flavor.insertions {
                assert!(insertion.lines.ends_with('\n'), "{insertion:?}");
                assert!(
                    insertion.lines.lines().all(|line| line.to_ascii_lowercase().contains("s2dump")),
                    "{insertion:?}"
                );
                assert!(!insertion.anchor.contains('\n'), "{insertion:?}");
            }
            assert!(repo.join(flavor.files).is_dir(), "{}", flavor.files);
        }
    }
}
