// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spans of addresses that are asked about from front to back.

/// What is said of the addresses from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<T> {
    /// First address.
    pub(super) start: u64,
    /// First address after.
    pub(super) end: u64,
    /// What is said.
    pub(super) said: T,
}

/// Spans in ascending order that do not overlap.
pub(super) struct Track<I: Iterator> {
    spans: std::iter::Peekable<I>,
}

impl<T: Copy, I: Iterator<Item = Span<T>>> Track<I> {
    /// Begins at the first of `spans`.
    pub(super) fn new(spans: I) -> Self {
        Self { spans: spans.peekable() }
    }

    /// Returns the span that has `at`, and up to where that, or that there is none, holds. `at` never goes back.
    pub(super) fn at(&mut self, at: u64) -> (Option<Span<T>>, u64) {
        while self.spans.next_if(|span| span.end <= at).is_some() {}
        match self.spans.peek() {
            Some(span) if span.start <= at => (Some(*span), span.end),
            Some(span) => (None, span.start),
            None => (None, u64::MAX),
        }
    }
}

/// Cuts `spans`, which may overlap, so that they do not; each part has what one of them says, and whether there are more.
pub(super) fn flatten<T: Copy>(mut spans: Vec<Span<T>>) -> Vec<Span<(Span<T>, bool)>> {
    spans.sort_by_key(|span| span.start);
    let mut rest = spans.iter().filter(|span| span.start < span.end).copied().peekable();
    let (mut active, mut parts): (Vec<Span<T>>, Vec<_>) = (Vec::new(), Vec::with_capacity(spans.len()));
    let mut at = 0;
    loop {
        active.retain(|span| span.end > at);
        if active.is_empty() {
            match rest.peek() {
                Some(span) => at = span.start,
                None => return parts,
            }
        }
        while let Some(span) = rest.next_if(|span| span.start <= at) {
            active.push(span);
        }
        let ends = active.iter().map(|span| span.end).min();
        let end = ends.into_iter().chain(rest.peek().map(|span| span.start)).min().unwrap_or(u64::MAX);
        parts.extend(active.first().map(|&first| Span { start: at, end, said: (first, active.len() > 1) }));
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, said: char) -> Span<char> {
        Span { start, end, said }
    }

    #[test]
    fn what_overlaps_is_cut() {
        let parts = flatten(vec![span(8, 9, 'd'), span(0, 4, 'a'), span(2, 6, 'b'), span(4, 4, 'x'), span(6, 7, 'c')]);
        let found: Vec<_> = parts.iter().map(|part| (part.start, part.end, part.said.0.said, part.said.1)).collect();
        let expected =
            [(0, 2, 'a', false), (2, 4, 'a', true), (4, 6, 'b', false), (6, 7, 'c', false), (8, 9, 'd', false)];
        assert_eq!(found, expected);
        assert!(flatten::<char>(Vec::new()).is_empty());
    }

    #[test]
    fn a_track_tells_spans_and_gaps() {
        let mut track = Track::new([span(2, 4, 'a'), span(4, 5, 'b')].into_iter());
        assert_eq!(track.at(0), (None, 2));
        assert_eq!(track.at(3), (Some(span(2, 4, 'a')), 4));
        assert_eq!(track.at(4), (Some(span(4, 5, 'b')), 5));
        assert_eq!(track.at(5), (None, u64::MAX));
    }
}
