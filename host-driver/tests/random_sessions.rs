// SPDX-License-Identifier: GPL-2.0-only
//! Makes random system calls in any order. Checks that slots always arrive whole, once and in order, and the END slot
//! last.

mod fake;

use fake::{a_dump, a_start, an_advance, Fake};
use proptest::prelude::*;
use s2dump_abi::hypercall::Op;
use s2dump_abi::ioctl::Start;
use s2dump_abi::slot::SlotKind;
use s2dump_host_driver::session::Session;

#[derive(Clone, Debug)]
enum Step {
    Dump,
    List,
    Frames,
    Facts,
    BadStart,
    Advance(u32),
    Read(usize),
    Signal(bool),
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => Just(Step::Dump),
        1 => Just(Step::List),
        1 => Just(Step::Frames),
        1 => Just(Step::Facts),
        1 => Just(Step::BadStart),
        8 => (0..6_u32).prop_map(Step::Advance),
        6 => prop_oneof![Just(4096), 0..200_usize].prop_map(Step::Read),
        1 => any::<bool>().prop_map(Step::Signal),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn good_slots_arrive_in_order(slots in 1..6_u32, calls in 1..30_u64, steps in steps()) {
        let mut session = Session::new(slots);
        let mut fake = Fake::new(slots as usize, calls);
        // The number the next new slot must carry, and whether the END slot was seen.
        let mut next_sequence = 0;
        let mut is_ended = true;
        let see = |fake: &Fake, slot: u32, next: &mut u64, ended: &mut bool| {
            let header = fake.header(slot);
            assert_eq!(header.sequence, *next);
            assert!(!*ended, "nothing follows the END slot");
            *next += 1;
            *ended = SlotKind(header.kind) == SlotKind::END;
        };
        for step in steps {
            match step {
                Step::Dump | Step::List | Step::Frames | Step::Facts => {
                    let mut start = match step {
                        Step::Dump => a_dump(),
                        Step::List => a_start(Op::LIST),
                        Step::Frames => Start { end: u64::MAX, ..a_start(Op::FRAMES) },
                        _ => a_start(Op::FACTS),
                    };
                    // From a start on the driver may write every slot, even if the start fails.
                    fake.lent.clear();
                    let is_started = session.start(&mut fake, &mut start).is_ok();
                    (next_sequence, is_ended) = (0, !is_started);
                }
                Step::BadStart => assert!(session.start(&mut fake, &mut a_start(Op(8))).is_err()),
                Step::Advance(release) => {
                    let released = fake.lent.get(..release as usize).map(<[u32]>::to_vec);
                    if released.is_some() {
                        fake.lent.drain(..release as usize);
                    }
                    let mut advance = an_advance(release);
                    match session.advance(&mut fake, &mut advance) {
                        Ok(()) => {
                            let held: Vec<u32> = (0..advance.filled).map(|i| (advance.first + i) % slots).collect();
                            prop_assert!(released.is_some(), "more than lent was taken back");
                            prop_assert!(held.starts_with(&fake.lent), "lent slots stay");
                            for slot in &held[fake.lent.len()..] {
                                see(&fake, *slot, &mut next_sequence, &mut is_ended);
                            }
                            fake.lent = held;
                        }
                        Err(_) => {
                            if let Some(mut released) = released {
                                released.append(&mut fake.lent);
                                fake.lent = released;
                            }
                        }
                    }
                }
                Step::Read(room) => {
                    if let Ok(Some(unread)) = session.next_unread(&mut fake) {
                        prop_assert!(unread.len_bytes > 0);
                        if unread.offset == 0 && room > 0 {
                            see(&fake, unread.slot, &mut next_sequence, &mut is_ended);
                        }
                        session.consume(unread, room.min(unread.len_bytes));
                    }
                }
                Step::Signal(waits) => fake.interrupt_at = waits.then_some(0),
                Step::Kill => fake.guests.clear(),
            }
        }
    }
}
