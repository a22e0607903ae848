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
pub(super) fn flatten<T: Copy>(spans: &[Span<T>]) -> impl Iterator<Item = Span<(Span<T>, bool)>> + '_ {
    let bounds = spans.iter().map(|span| (span.start, span.end));
    let parts = cut(bounds.collect());
    parts.into_iter().filter_map(|Span { start, end, said: (of, is_several) }| {
        Some(Span { start, end, said: (*spans.get(of)?, is_several) })
    })
}

/// Does the same without what is said: parts have the place of one of `bounds`. Sorting is large code, so it is here once.
fn cut(bounds: Vec<(u64, u64)>) -> Vec<Span<(usize, bool)>> {
    let mut order: Vec<(u64, usize)> = bounds.iter().enumerate().map(|(of, bound)| (bound.0, of)).collect();
    order.sort_unstable();
    let end_of = |of: usize| bounds.get(of).map_or(0, |bound| bound.1);
    let mut rest = order.into_iter().filter(|&(start, of)| start < end_of(of)).peekable();
    let (mut active, mut parts): (Vec<usize>, Vec<_>) = (Vec::new(), Vec::with_capacity(bounds.len()));
    let mut at = 0;
    loop {
        active.retain(|&of| end_of(of) > at);
        if active.is_empty() {
            match rest.peek() {
                Some(&(start, _)) => at = start,
                None => return parts,
            }
        }
        while let Some((_, of)) = rest.next_if(|&(start, _)| start <= at) {
            active.push(of);
        }
        let ends = active.iter().map(|&of| end_of(of)).min();
        let end = ends.into_iter().chain(rest.peek().map(|&(start, _)| start)).min().unwrap_or(u64::MAX);
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
        let spans = [span(8, 9, 'd'), span(0, 4, 'a'), span(2, 6, 'b'), span(4, 4, 'x'), span(6, 7, 'c')];
        let found: Vec<_> = flatten(&spans).map(|part| (part.start, part.end, part.said.0.said, part.said.1)).collect();
        let expected =
            [(0, 2, 'a', false), (2, 4, 'a', true), (4, 6, 'b', false), (6, 7, 'c', false), (8, 9, 'd', false)];
        assert_eq!(found, expected);
        assert_eq!(flatten::<char>(&[]).count(), 0);
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
