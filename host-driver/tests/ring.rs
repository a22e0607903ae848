// SPDX-License-Identifier: GPL-2.0-only
//! The ring's indices against a queue: exhaustively for small rings, at random for larger ones.

use proptest::prelude::*;
use s2dump_host_driver::ring::{NotLent, Ring};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
enum Step {
    Fill,
    Lend,
    Release(u32),
    Clear,
}

/// A queue that does what a ring must do, in the plainest form.
#[derive(Clone, Debug, Default)]
struct Model {
    next: u32,
    filled: VecDeque<u32>,
    lent: usize,
}

/// Applies a step to both and compares all that can be seen.
fn check(ring: &mut Ring, model: &mut Model, step: Step) {
    let slots = ring.slots();
    match step {
        Step::Fill => {
            if model.filled.len() < slots as usize {
                assert_eq!(ring.next_free(), Some(model.next));
                model.filled.push_back(model.next);
                model.next = (model.next + 1) % slots;
            } else {
                assert_eq!(ring.next_free(), None);
            }
            ring.fill();
        }
        Step::Lend => {
            ring.lend();
            model.lent = model.filled.len();
        }
        Step::Release(count) => {
            let before = *ring;
            if count as usize <= model.lent {
                assert_eq!(ring.release(count), Ok(()));
                model.filled.drain(..count as usize);
                model.lent -= count as usize;
            } else {
                let lent = model.lent as u32;
                assert_eq!(ring.release(count), Err(NotLent { released: count, lent }));
                assert_eq!(*ring, before, "a refused release changes nothing");
            }
        }
        Step::Clear => {
            ring.clear();
            *model = Model::default();
        }
    }
    assert_eq!(ring.filled() as usize, model.filled.len());
    assert_eq!(ring.oldest(), model.filled.front().copied());
    if let Some(first) = model.filled.front() {
        assert_eq!(ring.first(), *first);
    }
    assert!(ring.first() < slots);
}

fn exhaust(ring: Ring, model: &Model, depth: u32, seen: &mut u64) {
    *seen += 1;
    if depth == 0 {
        return;
    }
    let releases = (0..=ring.slots() + 1).chain([u32::MAX]).map(Step::Release);
    for step in [Step::Fill, Step::Lend, Step::Clear].into_iter().chain(releases) {
        let (mut ring, mut model) = (ring, model.clone());
        check(&mut ring, &mut model, step);
        exhaust(ring, &model, depth - 1, seen);
    }
}

#[test]
fn good_every_sequence_on_small_rings() {
    let mut seen = 0;
    for (slots, depth) in [(1, 6), (2, 6), (3, 5), (4, 5)] {
        exhaust(Ring::new(slots), &Model::default(), depth, &mut seen);
    }
    assert!(seen > 300_000, "only {seen} states");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Fill),
        2 => Just(Step::Lend),
        3 => (0..20_u32).prop_map(Step::Release),
        1 => any::<u32>().prop_map(Step::Release),
        1 => Just(Step::Clear),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn good_random_sequences(slots in 1..40_u32, steps in steps()) {
        let (mut ring, mut model) = (Ring::new(slots), Model::default());
        for step in steps {
            check(&mut ring, &mut model, step);
        }
    }
}
