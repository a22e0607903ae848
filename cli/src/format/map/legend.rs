// SPDX-License-Identifier: MIT OR Apache-2.0
//! How each class is shown: a name, a sign, a color and a pattern. Two of these tell it from the others, so that nobody needs the
//! color: a sign where cells are large, a pattern where they are small.

use crate::map::{Class, Map, Space};
use serde::Serialize;

/// How a class is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    /// For people.
    pub(super) name: String,
    /// One letter or sign.
    pub(super) sign: String,
    /// The name of a color of the style.
    pub(super) paint: &'static str,
    /// The pattern on it.
    pub(super) pattern: &'static str,
}

/// Colors of guests, of Okabe and Ito.
const PAINTS: [&str; 4] = ["blue", "orange", "green", "sky"];

/// Returns how `class` is shown, on a map with these guests.
pub(super) fn shown(class: Class, guests: &[&Space]) -> Shown {
    let guest = |number: usize| guests.get(number).map_or("a guest", |space| &space.name);
    let hue = |number: usize| guests.get(number).map_or(number, |space| space.hue);
    let paint = |number: usize| PAINTS[hue(number) % PAINTS.len()];
    let is_first = |number: usize| hue(number) % (2 * PAINTS.len()) < PAINTS.len();
    let sign = |number: usize, letters: &str| letters.chars().nth(hue(number) % 26).unwrap_or_default().to_string();
    let (name, sign, paint, pattern) = match class {
        Class::Nothing => ("nothing".into(), " ".into(), "paper", "plain"),
        Class::Host => ("host alone".into(), "·".into(), "host", "plain"),
        Class::HostShared => ("host, shared with EL2 or untold".into(), "+".into(), "host", "stripes"),
        Class::Hyp => ("EL2".into(), "2".into(), "purple", "plain"),
        Class::Table => ("table pages".into(), "#".into(), "ink", "grid"),
        Class::Guest { number, is_shared: false } => {
            let pattern = if is_first(number) { "plain" } else { "dots" };
            (format!("{} alone", guest(number)), sign(number, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), paint(number), pattern)
        }
        Class::Guest { number, is_shared: true } => {
            let pattern = if is_first(number) { "stripes" } else { "back" };
            (format!("{} and host", guest(number)), sign(number, "abcdefghijklmnopqrstuvwxyz"), paint(number), pattern)
        }
        Class::Guests => ("mapped by several guest entries".into(), "&".into(), "yellow", "back"),
        Class::SomeGuest => ("a guest, not told which".into(), "@".into(), "yellow", "dots"),
        Class::Poisoned => ("poisoned (taken back from a guest)".into(), "×".into(), "red", "cross"),
        Class::Device => ("devices that the host maps".into(), "~".into(), "host", "dots"),
        Class::Stateless => ("memory without states".into(), "-".into(), "host", "back"),
        Class::Other => ("others: secure world, protected regions, unknown".into(), "%".into(), "yellow", "plain"),
        Class::Untold => ("memory of which nothing is told".into(), "?".into(), "paper", "dots"),
        Class::Clash => ("tables do not agree".into(), "!".into(), "red", "plain"),
    };
    Shown { name, sign, paint, pattern }
}

/// Returns the guests of `map`.
pub(super) fn guests(map: &Map) -> Vec<&Space> {
    map.spaces.iter().filter(|space| space.guest.is_some()).collect()
}
