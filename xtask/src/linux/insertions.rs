// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines s2dump adds to files of the kernel, and how it takes them out again.
//!
//! Taking out knows our lines by their whole text, of this version or an earlier one. So applying twice, or a newer
//! version over an older one, is the same as applying once. Any other line that names s2dump is somebody else's: such a
//! file is refused, and stays as it is.

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
    /// The shortest text that occurs exactly once in the file; must not span lines.
    pub(crate) anchor: &'static str,
    /// Where, seen from the anchor.
    pub(crate) side: Side,
    /// Whole lines. Each names s2dump, so that a reader of the file sees whose it is.
    pub(crate) lines: &'static str,
}

/// Directory of our own files, from the top of the kernel tree.
pub(crate) const OWN_DIR: &str = "arch/arm64/kvm/s2dump";

/// Texts that earlier versions inserted, with their files: whoever changes the lines of an insertion puts the old ones
/// here, or else a tree with the old version is refused. None has changed since the first version.
const FORMER: &[(&str, &str)] = &[];

/// Returns the text of `file` without what we put into it: the kernel's own file.
///
/// # Errors
///
/// If another line names s2dump; tells which.
pub(crate) fn without_ours(file: &str, text: &str, own_texts: &[&str]) -> Result<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let is_here = |own: &&&str| own.split_inclusive('\n').eq(lines[at..].iter().copied().take(own.lines().count()));
        if let Some(own) = own_texts.iter().find(is_here) {
            at += own.lines().count();
            continue;
        }
        at += 1;
        if line.to_ascii_lowercase().contains("s2dump") {
            bail!(
                "{file}:{at}: `{}` names s2dump, but no version of s2dump puts this line there: remove it, or rename \
                 what it names; nothing was changed",
                line.trim()
            );
        }
        kept += line;
    }
    Ok(kept)
}

/// Returns every text that `insertions`, or those of an earlier version, put into `file`, the longest first.
pub(crate) fn own_texts(file: &str, insertions: &[Insertion]) -> Vec<&'static str> {
    let of_now = insertions.iter().map(|insertion| (insertion.file, insertion.lines));
    let mut texts: Vec<&str> = of_now.chain(FORMER.iter().copied()).filter(|of| of.0 == file).map(|of| of.1).collect();
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts
}

/// Returns the text of `file` with all of `insertions` that name it.
///
/// # Errors
///
/// As [`without_ours`]; or if an anchor is not found exactly once: names file and anchor.
pub(crate) fn insert(file: &str, text: &str, insertions: &[Insertion]) -> Result<String> {
    let mut text = without_ours(file, text, &own_texts(file, insertions))?;
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

    const LINES: &str = "#ifdef S2DUMP\ns2dump 1\n#endif /* S2DUMP */\n";
    const ONE: [Insertion; 1] = [Insertion { file: "f", anchor: "two", side: Side::After, lines: LINES }];

    #[test]
    fn good_before_and_after() {
        assert_eq!(insert("f", "one\nand two.\nthree\n", &ONE).unwrap(), format!("one\nand two.\n{LINES}three\n"));
        let before = [Insertion { side: Side::Before, ..ONE[0] }];
        assert_eq!(insert("f", "one\nand two.\n", &before).unwrap(), format!("one\n{LINES}and two.\n"));
        assert_eq!(insert("g", "one\n", &ONE).unwrap(), "one\n", "another file keeps its text");
    }

    #[test]
    fn good_twice_is_once() {
        let once = insert("f", "one\ntwo\n", &ONE).unwrap();
        assert_eq!(insert("f", &once, &ONE).unwrap(), once);
    }

    #[test]
    fn good_every_former_text_goes_wherever_it_stands() {
        let own = ["s2dump old a\ns2dump old b\n", "s2dump old a\n"];
        let text = "s2dump old a\none\ns2dump old a\ns2dump old b\ntwo\ns2dump old a\n";
        assert_eq!(without_ours("f", text, &own).unwrap(), "one\ntwo\n");
        for (file, lines) in FORMER {
            assert_eq!(without_ours(file, &format!("one\n{lines}two\n"), &[lines]).unwrap(), "one\ntwo\n");
        }
    }

    #[test]
    fn bad_line_of_somebody_else_is_refused_with_its_place() {
        let once = insert("f", "one\ntwo\n", &ONE).unwrap();
        for (text, line) in [
            ("one\n/* S2dump is good */\ntwo\n".to_owned(), 2),
            // Behind our own lines, alone though it looks like one of them, or one of ours that was changed.
            (format!("{once}s2dump 1\n"), 6),
            ("two\n#endif /* S2DUMP */\n".to_owned(), 2),
            (once.replace("s2dump 1\n", "s2dump 1\nmine\n"), 3),
            // Not even its newline is missing in vain.
            ("two\n#ifdef S2DUMP\ns2dump 1\n#endif /* S2DUMP */".to_owned(), 2),
        ] {
            let error = insert("f", &text, &ONE).expect_err(&text).to_string();
            assert!(error.starts_with(&format!("f:{line}: ")), "{error}");
        }
    }

    #[test]
    fn bad_anchor_missing_or_twice_is_named() {
        for (text, want) in [("one\n", "no line has `two`"), ("two\ntwo\n", "`two` occurs 2 times")] {
            let error = insert("f", text, &ONE).unwrap_err().to_string();
            assert!(error.starts_with("f: ") && error.contains(want), "{error}");
        }
    }
}
