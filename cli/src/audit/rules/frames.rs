// SPDX-License-Identifier: MIT OR Apache-2.0
//! States of page frames, which agree with the tables on both sides.
//!
//! What is legal and looks wrong: a host hole whose frame the host owns or shares (it is mapped at the first access); EL2's
//! code, which the host may read though the frame is not its; a frame that the host shares with neither EL2 nor guests
//! (FF-A); references of frames that are not shared with EL2, which are counts of EL2's page pools.

use super::{Need, On, Rule, MAINLINE, PKVM};
use crate::audit::sight::{ordinary_state, owner_of, owner_words, protected_state};
use crate::words;
use s2dump_abi::slot::RecordKind;
use s2dump_abi::target::Target;
use s2dump_vmsa::pkvm::{Owner, PageState};

pub(super) static DONATED: Rule = Rule {
    id: "frame-donated",
    meaning: "a frame is not the host's exactly where the host's table has an annotation; EL2's code aside",
    broken:
        "what the host may map and what pKVM takes to be its differ: it can get a page that is not its, or lose one",
    on: &[On::Host],
    needs: &[Need::Host, Need::Frames, Need::Text],
    scope: PKVM,
    yields_to: &[
        "guest-exclusive",
        "owned-donated",
        "donation-backed",
        "table-owned",
        "hyp-text-read-only",
        "host-annotation-owner",
        "host-annotation-memory",
        "entry-locked",
        "entry-reserved",
        "entry-outside",
    ],
    check: |sight, machine| {
        let host = sight.host.as_ref()?;
        let frame = sight.frame(machine)?;
        let is_annotated = owner_of(machine, host).is_some();
        match (frame.host.is_some_and(PageState::is_no_page), is_annotated) {
            (true, false) if machine.known.is_text(sight.pa) => None,
            (true, false) => Some(format!(
                "the frame is not the host's, and in the host's table it is {}",
                owner_words(sight, machine)
            )),
            (true, true) => None,
            (false, true) => {
                Some(format!("the frame is the host's, and in the host's table it is {}", owner_words(sight, machine)))
            }
            (false, false) => None,
        }
    },
};

pub(super) static HYP_OWNED: Rule = Rule {
    id: "frame-hyp-owned",
    meaning: "a frame is EL2's exactly where the host's table says that it was donated to it; EL2's code aside",
    broken: "EL2 uses a page that the host may get, or has one that it does not know to be its",
    on: &[On::Host],
    needs: &[Need::Host, Need::Frames, Need::Text],
    scope: MAINLINE,
    yields_to: &[
        "frame-donated",
        "table-owned",
        "owned-donated",
        "donation-backed",
        "guest-exclusive",
        "hyp-text-read-only",
        "host-annotation-owner",
        "host-annotation-memory",
        "entry-locked",
        "entry-reserved",
        "entry-outside",
    ],
    check: |sight, machine| {
        let owner = owner_of(machine, sight.host.as_ref()?);
        let is_owned = sight.frame(machine)?.hyp == Some(PageState::Owned);
        let is_text = machine.known.is_text(sight.pa);
        let is_right = is_owned == (owner == Some(Owner::Hyp)) || is_text;
        let does = if is_owned { "owns" } else { "does not own" };
        (!is_right)
            .then(|| format!("EL2 {does} the frame, and in the host's table it is {}", owner_words(sight, machine)))
    },
};

pub(super) static SHARES: Rule = Rule {
    id: "frame-shares",
    meaning: "a frame that EL2 or a guest borrows is one the host shares, and with one of the two only",
    broken:
        "two borrowers, or an owner who does not know that he shares: the page can be given away while it is in use",
    on: &[On::Host],
    needs: &[Need::Frames, Need::Host],
    scope: MAINLINE,
    yields_to: &["frame-donated"],
    check: |sight, machine| {
        let frame = sight.frame(machine)?;
        let (Some(host), Some(hyp)) = (frame.host, frame.hyp) else {
            return Some("a state that pKVM does not have".into());
        };
        let is_shared = host == PageState::SharedOwned;
        match hyp {
            PageState::SharedBorrowed if !is_shared => Some("EL2 borrows it, and the host does not share it".into()),
            PageState::SharedBorrowed if frame.share_count > 0 => {
                Some(format!("shared with EL2 and with {} entries of guests", frame.share_count))
            }
            PageState::SharedOwned if host != PageState::SharedBorrowed => {
                Some("EL2 shares it, and the host does not borrow it".into())
            }
            _ if frame.share_count > 0 && !is_shared => {
                Some(format!("shared with {} entries of guests, and the host does not share it", frame.share_count))
            }
            _ => None,
        }
    },
};

pub(super) static PINNED: Rule = Rule {
    id: "frame-pinned",
    meaning: "a frame that the host shares with EL2 has references exactly if EL2 maps it",
    broken: "EL2 would fault on a page that it has pinned, or the host can take one back that EL2 uses",
    on: &[On::Shared],
    needs: &[Need::Hyp, Need::Frames, Need::Linear],
    scope: MAINLINE,
    yields_to: &["frame-shares"],
    check: |sight, machine| {
        let frame = sight.frame(machine)?;
        let (target, row) = sight.entry()?;
        if target != Target::HYP || frame.hyp != Some(PageState::SharedBorrowed) {
            return None;
        }
        let is_mapped = row.kind == RecordKind::LEAF;
        let does = if is_mapped { "maps" } else { "does not map" };
        (is_mapped != (frame.refcount > 0)).then(|| format!("EL2 {does} it, and it has {} references", frame.refcount))
    },
};

pub(super) static BORROWED: Rule = Rule {
    id: "frame-borrowed",
    meaning: "what a protected guest shares with the host is a frame that the host borrows",
    broken: "the host takes the page for its own and can give it to somebody else, or cannot reach it",
    on: &[On::Guest],
    needs: &[Need::Frames, Need::List],
    scope: MAINLINE,
    yields_to: &["frame-donated", "frame-hyp-owned", "guest-exclusive", "guest-memory", "table-in-guest"],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        if protected_state(machine, target, row)? != PageState::SharedOwned {
            return None;
        }
        let host = sight.frame(machine)?.host;
        let is_right = host == Some(PageState::SharedBorrowed);
        (!is_right).then(|| format!("the host has it {}", words::frame_state(host)))
    },
};

pub(super) static LENT: Rule = Rule {
    id: "frame-lent",
    meaning: "what an ordinary guest maps is a frame that the host shares with guests",
    broken: "the host can give the page away while the guest still uses it",
    on: &[On::Guest],
    needs: &[Need::Frames, Need::List],
    scope: PKVM,
    yields_to: &["ordinary-donated", "guest-exclusive", "table-in-guest", "ordinary-borrowed", "frame-shares"],
    check: |sight, machine| {
        let (target, row) = sight.entry()?;
        ordinary_state(machine, target, row)?;
        let frame = sight.frame(machine)?;
        let is_right = frame.host == Some(PageState::SharedOwned) && frame.share_count > 0;
        let (host, count) = (words::frame_state(frame.host), frame.share_count);
        (!is_right).then(|| format!("the host has it {host}, shared with {count} entries of guests"))
    },
};

pub(super) static SHARE_COUNT: Rule = Rule {
    id: "share-count",
    meaning: "a frame's share count is the number of entries of ordinary guests that map it",
    broken: "the host gets the page back too early, or never",
    on: &[On::Count],
    needs: &[Need::Frames, Need::List],
    scope: MAINLINE,
    yields_to: &[
        "frame-lent",
        "frame-shares",
        "ordinary-donated",
        "ordinary-borrowed",
        "guest-exclusive",
        "table-in-guest",
        "guest-memory",
    ],
    check: |sight, machine| {
        let (frame, mapped) = (sight.frame(machine)?, sight.shares?.ordinary);
        let count = frame.share_count;
        (u64::from(count) != mapped).then(|| format!("the count is {count}, and {mapped} entries of guests map it"))
    },
};

pub(super) static LENDER: Rule = Rule {
    id: "borrowed-lender",
    meaning: "a frame that the host borrows is shared by a protected guest that maps it",
    broken: "the page has no owner: it comes back to nobody",
    on: &[On::Count],
    needs: &[Need::Frames, Need::List],
    scope: MAINLINE,
    yields_to: &["frame-donated", "frame-shares"],
    check: |sight, machine| {
        let frame = sight.frame(machine)?;
        let is_hyps = frame.hyp == Some(PageState::SharedOwned);
        let is_lent = frame.host != Some(PageState::SharedBorrowed) || is_hyps || sight.shares?.lenders > 0;
        (!is_lent).then(|| "the host borrows it, and no protected guest shares it".into())
    },
};
