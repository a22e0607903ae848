// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a terminal of some width shows.

use super::support::*;
use super::{run_in, world, TempFile};
use crate::exit_code::ExitCode;
use crate::pager::Screen;
use crate::source::SourceError;
use crate::verbs::Context;
use s2dump_abi::hypercall::Status;
use s2dump_abi::slot::Record;

fn on_terminal(width: usize, command: &str, code: ExitCode) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let open = || Err(SourceError::Open(std::io::Error::from_raw_os_error(2)));
    let mut context = Context { out_is_terminal: true, width: Some(width), ..world(&open, &mut out, &mut err) };
    assert_eq!(run_in(command, &mut context), code, "{command}");
    let screen = if command.contains("--no-pager") { Screen::Rows } else { Screen::Paged };
    assert_eq!(context.screen.replace(Screen::Plain), screen, "{command}");
    String::from_utf8(out).unwrap()
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
