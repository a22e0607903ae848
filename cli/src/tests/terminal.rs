// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a terminal of some width shows.

use super::capture::Directory;
use super::support::*;
use super::{run_in, world, TempFile};
use crate::exit_code::ExitCode;
use crate::format::vms::{self, Sizes};
use crate::format::watch::WatchWriter;
use crate::machine::differ::{Change, Said};
use crate::pager::Screen;
use crate::source::SourceError;
use crate::verbs::Context;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::Record;

fn on_terminal(width: usize, command: &str, code: ExitCode) -> String {
    let (ran, out) = shown(width, command);
    assert_eq!(ran, code, "{command}");
    out
}

fn shown(width: usize, command: &str) -> (ExitCode, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open = || Err(SourceError::Open(std::io::Error::from_raw_os_error(2)));
    let mut context = Context { out_is_terminal: true, width: Some(width), ..world(&open, &mut out, &mut err) };
    let code = run_in(command, &mut context);
    let screen = if command.contains("--no-pager") { Screen::Rows } else { Screen::Paged };
    assert_eq!(context.screen.replace(Screen::Plain), screen, "{command}");
    (code, String::from_utf8(out).unwrap())
}

/// Returns what stands between title and footer.
fn rows(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("# ") || line.starts_with("# all")).collect()
}

#[test]
fn tables_fit_the_terminal() {
    let capture = TempFile::new("terminal", &two_vms().bytes);
    let dump = |width, vm: &str| on_terminal(width, &format!("dump -i {} {vm}", capture.path()), ExitCode::Ok);
    let [wide, usual, narrow] = [120, 80, 56].map(|width| dump(width, "0x1000"));
    assert_eq!(
        rows(&wide)[..4],
        [
            "# all: normal-wb ish af",
            "INPUT ADDRESSES              SIZE LV RWX STATE        OUTPUT",
            "0x0000000000-0x007fffffff    2GiB L1 -   -            -",
            "0x0080000000-0x008000ffff   64KiB L3 rwx owned        0x40a12000,scattered",
        ]
    );
    assert_eq!(rows(&wide)[1..].iter().map(|row| row.len()).max(), Some(74), "{wide}");
    assert_eq!(usual, wide, "it fits");
    assert_eq!(rows(&narrow)[1], "START        LV RWX STATE        OUTPUT");
    for (width, vm) in [(80, "0x1000"), (80, "0x1001"), (56, "0x1000")] {
        let text = dump(width, vm);
        assert!(rows(&text).iter().all(|row| row.len() <= width), "{width}: {text}");
    }
    // EL1 devices stand beside memory: memory is a column.
    assert!(rows(&dump(80, "0x1001"))[1].contains(" MEMORY "));
    // Names are beside what is usual, and give way to nothing.
    let named = |width| on_terminal(width, &format!("dump -i {} 0x1000 --names", capture.path()), ExitCode::Ok);
    let heading = "START           SIZE LV RWX STATE        OUTPUT               SLOT HVA NAME";
    assert_eq!(rows(&named(80))[..2], ["# all: normal-wb ish af", heading]);
    assert!(rows(&named(100))[1].starts_with("INPUT ADDRESSES "), "{}", named(100));
    let chosen = on_terminal(40, &format!("dump -i {} 0x1000 -o range,memory", capture.path()), ExitCode::Ok);
    assert!(chosen.contains("0x0000000080000000-0x000000008000ffff normal-wb\n"), "{chosen}");
}

/// The first rows decide; those that come later and are otherwise say so.
#[test]
fn late_rows_that_differ_say_so() {
    let page = |n: u64, attributes| leaves(0x8000_0000 + n * 0x1000, 3, 1, 0x4000_0000 + n * 0x2000, attributes);
    let mut records: Vec<Record> = (0..600).map(|n| page(n, PAGE)).collect();
    records.push(page(600, PAGE & !(0xf << 2)));
    let mut capture = Capture::default();
    capture.list(&three_vms()).dump(dump_header(0x1000, VTCR_40), &records, 100, Status::OK);
    let capture = TempFile::new("late", &capture.bytes);
    let text = on_terminal(80, &format!("dump -i {} --exact --no-pager", capture.path()), ExitCode::Partial);
    let rows = rows(&text);
    assert_eq!(rows[0], "# all that do not say otherwise: normal-wb ish af");
    assert_eq!(rows.len(), 2 + 601, "{text}");
    assert!(rows[2 + 599].ends_with(" owned 0x404ae000"), "{}", rows[2 + 599]);
    assert!(rows[2 + 600].ends_with(" owned 0x404b0000 memory=dev-nGnRnE"), "{}", rows[2 + 600]);
}

/// Captures in a directory.
struct Captures(Directory);

impl Captures {
    fn new(name: &str) -> Self {
        let directory = Directory::new(name);
        captures::save_all(&directory.join(""));
        Self(directory)
    }

    /// Returns what `command` shows, whose captures are in the directory.
    fn shown(&self, width: usize, command: &str) -> String {
        let in_it = |word: &str| match word.ends_with(".s2d") {
            true => self.0.join(word).display().to_string(),
            false => word.to_owned(),
        };
        let words: Vec<String> = command.split(' ').map(in_it).collect();
        shown(width, &words.join(" ")).1
    }
}

#[test]
fn all_verbs_fit_the_terminal() {
    let captures = Captures::new("fit");
    let commands = [
        "list -i two.s2d",
        "list -i two.s2d --size",
        "frames -i pkvm.s2d",
        "frames -i machine.s2d",
        "rmap -i pkvm.s2d 0x4000_0000+1G",
        "rmap -i broken.s2d 0x4000_0000+1G",
        "diff pkvm.s2d later.s2d",
        "walk -i two.s2d vm:0x1000 0x8000_0000",
        "walk -i names.s2d vm:0x1000 0x8000_0000",
        "walk -i pkvm.s2d host 0x4000_0000",
        "walk -i hyp-nvhe.s2d hyp 0",
        "audit -i broken.s2d",
        "audit -i without-hyp.s2d",
        "audit --list",
    ];
    for command in commands {
        for width in [80, 64] {
            let text = captures.shown(width, command);
            assert!(text.lines().count() > 1, "{command}: {text}");
            let wide = rows(&text).into_iter().find(|row| row.chars().count() > width);
            assert_eq!(wide, None, "{command}, {width}: {text}");
        }
    }
}

#[test]
fn columns_go_in_their_order() {
    let captures = Captures::new("order");
    let heading = |width, command: &str| {
        let text = captures.shown(width, command);
        rows(&text)[0].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let frames = |width| heading(width, "frames -i machine.s2d");
    assert_eq!(frames(200), "START END SIZE HOST HYP REFCOUNT ORDER SHARES NOTE");
    assert_eq!(frames(90), "START SIZE HOST HYP REFCOUNT ORDER SHARES NOTE");
    assert_eq!(frames(84), "START SIZE HOST HYP REFCOUNT SHARES NOTE");
    assert_eq!(frames(76), "START HOST HYP REFCOUNT SHARES NOTE");
    let rmap = |width| heading(width, "rmap -i pkvm.s2d 0x4000_0000+1G");
    assert_eq!(rmap(200), "PHYSICAL ADDRESSES SIZE BY AT LV RWX STATE");
    assert_eq!(rmap(80), "START SIZE BY AT LV RWX STATE");
    let list = |width| heading(width, "list -i two.s2d");
    assert_eq!(list(80), "VM ID PID KIND STATE VCPUS IPA LEVELS VMID ROOT");
    assert_eq!(list(70), "VM ID PID KIND STATE VCPUS IPA VMID ROOT");
    assert_eq!(list(65), "VM ID PID KIND STATE VCPUS IPA ROOT");
    // In a pipe none goes.
    let piped = super::run_without_device(&format!("frames -i {}", captures.0.join("machine.s2d").display())).out;
    assert!(rows(&piped)[1].starts_with("0x0000000040000000 0x000000004000ffff     64KiB no-page   "), "{piped}");
}

/// Where names of processes and sizes are told too, which only a machine does.
#[test]
fn a_list_with_all_columns_fits() {
    let vms = three_vms();
    let sizes = Sizes::from([(0x1000, 1023 << 20)]);
    let mut text = Vec::new();
    let comm = |_| Some("qemu-system-aarch".to_owned());
    vms::write_table(&mut text, &vms, true, (Some(comm), Some(&sizes)), Some(80)).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    assert!(text.starts_with("VM "), "{text}");
    assert!(text.lines().next().unwrap().ends_with(" MAPPED ROOT       COMM"), "{text}");
}

#[test]
fn long_text_is_wrapped_below_itself() {
    let captures = Captures::new("wrap");
    let walk = captures.shown(70, "walk -i pkvm.s2d vm:0x1000 0x8000_0000");
    let at = walk.lines().nth(1).unwrap().find("MEANING").unwrap();
    let wrapped = walk.lines().find(|line| line.starts_with(&" ".repeat(at))).unwrap_or_else(|| panic!("{walk}"));
    assert_eq!(wrapped.trim_start().len() + at, wrapped.len(), "{walk}");
    let rules = captures.shown(60, "audit --list");
    assert!(
        rules.contains("host-rights             the host has memory rwx and devices\n                        rw, and"),
        "{rules}"
    );
    let audit = captures.shown(60, "audit -i broken.s2d --rule guest-exclusive");
    assert!(
        audit.contains("\n  rule   a page that a protected guest owns is mapped\n         nowhere else: "),
        "{audit}"
    );
}

/// What went for one reading does not come back for the next.
#[test]
fn lines_of_watch_stay_below_each_other() {
    let said = |state: &str, whole: bool| Said {
        rights: whole.then(|| "rwx".into()),
        memory: whole.then(|| "normal-wb".into()),
        state: state.to_owned().into(),
        address: whole.then_some(0x4118_0000),
    };
    let change = |start: u64, old: Option<Said>, new| Change {
        of: "vm:0x1000".into(),
        start,
        end: start + 0x1000,
        old,
        new: Some(new),
    };
    let mut writer = WatchWriter::new(false, 12, Some(80));
    let mut text = Vec::new();
    let time = std::time::Duration::from_micros(41_203_118);
    for change in [
        change(0x8000_4000, Some(said("owned", true)), said("shared-owned", true)),
        change(0x8004_0000, None, said("owned", true)),
        change(0x1_8000_4000, Some(said("owned", true)), said("shared-owned", true)),
    ] {
        writer.changes(&mut text, time, &[change]).unwrap();
    }
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "[   41.203118] vm:0x1000 0x80004000-0x80004fff 4KiB owned -> shared-owned\n\
         [   41.203118] vm:0x1000 0x80040000 4KiB hole -> rwx normal-wb owned 0x41180000\n\
         [   41.203118] vm:0x1000 0x180004000 4KiB owned -> shared-owned\n"
    );
}

/// A machine in order has nothing red.
#[test]
fn red_is_what_is_wrong() {
    let captures = Captures::new("red");
    let mut shouted = 0;
    for command in ["dump -i pkvm.s2d all", "dump -i machine.s2d all", "dump -i odd.s2d -o +contig"] {
        let text = captures.shown(120, &format!("{command} --color always"));
        for row in rows(&text).into_iter().filter(|row| row.contains("0x")) {
            assert_eq!(row.contains("\x1b[31m"), row.contains('!'), "{row}");
            shouted += usize::from(row.contains('!'));
        }
        if command.contains("pkvm") {
            assert!(text.contains("fixmap") && text.contains("owner=vm:") && shouted == 0, "{text}");
        }
    }
    assert!(shouted > 2);
}
