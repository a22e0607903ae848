// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map as one HTML file that needs nothing else, or as SVG for documents.
//!
//! The page may load nothing, and run nothing but its own script: its policy names the digests of style and script. Data is a
//! block that no browser executes, and the script puts none of it into markup.

mod legend;
mod pack;
mod sha256;
mod svg;

pub(crate) use svg::write_svg;

use crate::machine::differ::{Change, Said};
use crate::map::{Class, Map};
use crate::numbers::Size;
use legend::{shown, Shown};
use miniz_oxide::inflate::decompress_to_vec;
use pack::{base64, Packer};
use serde::Serialize;
use sha256::sha256;
use std::collections::HashMap;
use std::io::{self, Write};

/// Names a part of the page, as `build.rs` packed it.
macro_rules! packed_part {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".deflate"))
    };
}
const PAGE_HTML: &[u8] = packed_part!("page.html");
const STYLE: &[u8] = packed_part!("page.css");
const SCRIPT: &[u8] = packed_part!("page.js");

/// Unpacks a part of the page.
fn unpacked(part: &[u8]) -> io::Result<String> {
    let bytes = decompress_to_vec(part).map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// What a map is of.
pub(crate) struct Told<'a> {
    /// Where it comes from.
    pub(crate) source: String,
    /// What was not read, or not all.
    pub(crate) unread: &'a [String],
    /// What else is to be known of the two readings.
    pub(crate) notes: &'a [String],
    /// What changed since another reading, and where that comes from.
    pub(crate) since: Option<(String, &'a [Change])>,
}

#[derive(Serialize)]
struct Facts<'a> {
    source: &'a str,
    page_bytes: u64,
    since: Option<&'a str>,
    notes: Vec<String>,
    classes: Vec<Line>,
    spaces: Vec<SpaceFacts<'a>>,
    sayings: Vec<(usize, &'a str)>,
    kinds: Vec<(usize, &'a str, &'a str, &'a str)>,
    changed: Vec<String>,
}

/// A line of the legend.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    shown: Shown,
    /// Of physical memory.
    memory: String,
    /// Of input addresses.
    input: String,
}

#[derive(Serialize)]
struct SpaceFacts<'a> {
    name: &'a str,
    about: &'a str,
    guest: Option<usize>,
}

/// What no map shows.
const NEVER_SHOWN: &str =
    "Not shown: DMA (tables of SMMUs), the secure world's own tables, caches and TLBs; contents of memory. \
                           Tables were read one after the other, so what moved meanwhile may not agree.";

/// Returns where `change` is: 0 for physical memory, else the number of its space plus one.
fn place(map: &Map, change: &Change) -> Option<usize> {
    match map.spaces.iter().position(|space| space.name == change.of) {
        Some(space) => Some(space + 1),
        None if ["host", "frames"].contains(&change.of.as_str()) => Some(0),
        // The table is gone, and its input addresses with it.
        None => None,
    }
}

/// Returns what the map does not show, in sentences.
fn notes(map: &Map, told: &Told<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let changes = told.since.iter().flat_map(|since| since.1);
    let mut gone: Vec<&str> =
        changes.filter(|change| place(map, change).is_none()).map(|change| change.of.as_str()).collect();
    gone.dedup();
    if !gone.is_empty() {
        notes.push(format!("Gone since then: {}.", gone.join(", ")));
    }
    if !told.unread.is_empty() {
        notes.push(format!("Not read, or not all: {}. What they have is not shown.", told.unread.join(", ")));
    }
    notes.extend(told.notes.iter().map(|note| format!("Mind: {note}.")));
    notes.push(NEVER_SHOWN.into());
    notes
}

/// Returns the classes in the order of the legend, with their totals.
fn lines(map: &Map) -> (Vec<Class>, Vec<Line>) {
    let totals = map.totals();
    let guests = legend::guests(map);
    let size = |bytes: u64| if bytes == 0 { "-".into() } else { Size(bytes).to_string() };
    let line = |(&class, &[memory, input]): (&Class, &[u64; 2])| Line {
        shown: shown(class, &guests),
        memory: size(memory),
        input: size(input),
    };
    (totals.keys().copied().collect(), totals.iter().map(line).collect())
}

/// Returns `map` packed, without changes.
#[cfg(test)]
pub(crate) fn packed(map: &Map) -> Vec<u8> {
    let mut packer = Packer::default();
    pack::add(map, &mut packer);
    packer.finish()
}

/// Writes `map` as a page.
pub(crate) fn write_html(out: &mut dyn Write, map: &Map, told: &Told<'_>) -> io::Result<()> {
    let mut packer = Packer::default();
    pack::add(map, &mut packer);
    let changed = add_changes(map, told.since.as_ref().map_or(&[], |since| since.1), &mut packer);
    let (classes, lines) = lines(map);
    let number = |class: Class| classes.binary_search(&class).unwrap_or(0);
    let facts = Facts {
        source: &told.source,
        page_bytes: map.page_bytes,
        since: told.since.as_ref().map(|since| since.0.as_str()),
        notes: notes(map, told),
        classes: lines,
        spaces: map
            .spaces
            .iter()
            .map(|space| SpaceFacts { name: &space.name, about: &space.about, guest: space.guest })
            .collect(),
        sayings: map.sayings.iter().map(|said| (number(said.class), said.text.as_str())).collect(),
        kinds: map
            .kinds
            .iter()
            .map(|kind| (number(kind.class), kind.host.as_str(), kind.frame.as_str(), kind.more.as_str()))
            .collect(),
        changed,
    };
    // Within a script element, only `<` could end it.
    let facts = serde_json::to_string(&facts)?.replace('<', "\\u003c");
    let data = base64(&packer.finish());
    let digest = |text: &str| format!("'sha256-{}'", base64(&sha256(text.as_bytes())));
    let (page, style, script) = (unpacked(PAGE_HTML)?, unpacked(STYLE)?, unpacked(SCRIPT)?);
    let (style_digest, script_digest) = (digest(&style), digest(&script));
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.write_all(before.as_bytes())?;
        let text = match name {
            "style" => &style,
            "script" => &script,
            "style-digest" => &style_digest,
            "script-digest" => &script_digest,
            "facts" => &facts,
            "data" => &data,
            _ => "",
        };
        out.write_all(text.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

/// Adds the changes: how many, and of each its space (0 for physical memory), its first page less that of the one before, how
/// many pages, and what was said before and is said now: the number of what is returned, as `n << 1`, or `n << 1 | 1` if the page
/// follows that the first one led to. Only where that is another now it is told.
fn add_changes(map: &Map, changes: &[Change], packer: &mut Packer) -> Vec<String> {
    let mut texts = Vec::new();
    let mut numbers = HashMap::<String, u64>::new();
    let mut number = |text: String| {
        *numbers.entry(text).or_insert_with_key(|text| {
            texts.push(text.clone());
            texts.len() as u64 - 1
        })
    };
    let shown: Vec<_> = changes.iter().filter_map(|change| Some((place(map, change)?, change))).collect();
    packer.number(shown.len() as u64);
    let mut last = 0_i64;
    for (space, change) in shown {
        let start = (change.start / map.page_bytes) as i64;
        packer.number(space as u64);
        packer.signed(start - last);
        packer.number((change.end - change.start) / map.page_bytes);
        let sides = [&change.old, &change.new].map(Option::as_ref);
        let addresses = sides.map(|said| said.and_then(|said| said.address));
        for (said, address) in sides.into_iter().zip(addresses) {
            let address = address.filter(|_| addresses[0] != addresses[1]);
            packer.number(number(words(&change.of, said)) << 1 | u64::from(address.is_some()));
            address.into_iter().for_each(|address| packer.number(address / map.page_bytes));
        }
        last = start;
    }
    texts
}

fn words(of: &str, said: Option<&Said>) -> String {
    let Some(said) = said else { return format!("{of}: nothing") };
    let words = said.rights.iter().chain(&said.memory).chain([&said.state]).filter(|word| *word != "-");
    let words: Vec<&str> = words.map(|word| &**word).collect();
    format!("{of}: {}", words.join(" "))
}
