// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's table and EL2's own, by the same calls as a guest's: geometry, header, permission.

use crate::common::{shape, Tables, BASE, PAGE};
use crate::fake::{Answer, Hypervisor, MAIR, SLOT_PFN};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::slot::{record_flags, table_features, RecordKind};
use s2dump_abi::target::Target;
use s2dump_abi::version::{features, ABI_VERSION};

const HOST_SHAPE: &str = "4k_40_two_roots";

fn hypervisor(hyp_shape: &str) -> Hypervisor {
    let mut host = Tables::new(shape(HOST_SHAPE));
    host.map(0x4000_0000, 2, 0x4000_0000, 0x4fd);
    // A page that EL2 owns.
    host.set(0x4020_0000, 3, 2 << 60 | 1 << 1);
    let mut hyp = Tables::new(shape(hyp_shape));
    hyp.table_bits = 1 << 60;
    hyp.map(0x8000_0000, 3, 0x9000_0000, PAGE);
    let mut hypervisor = Hypervisor::new([]);
    hypervisor.host = Some(host);
    hypervisor.hyp = Some(hyp);
    hypervisor
}

fn dump(hypervisor: &Hypervisor, target: Target, cursor: u64, end: u64) -> Answer {
    hypervisor.call([Op::DUMP.0.into(), SLOT_PFN, target.0, cursor, end, 0, 0])
}

fn walk(hypervisor: &Hypervisor, target: Target, address: u64) -> Answer {
    hypervisor.call([Op::WALK.0.into(), SLOT_PFN, target.0, address, 0, 0, 0])
}

fn assert_status(answer: &Answer, status: Status) {
    assert_eq!(answer.status, u64::from(status.0));
}

#[test]
fn good_host_is_dumped_as_a_guest_is() {
    let hypervisor = hypervisor("el2_4k_48");
    let answer = dump(&hypervisor, Target::HOST, 0x4000_0000, 0x4040_0000);
    assert_status(&answer, Status::OK);
    let header = answer.header().unwrap();
    assert_eq!((header.target, header.vmid, header.flags, header.mair), (Target::HOST.0, 0, 0, 0));
    assert_eq!((header.vtcr, header.root), (shape(HOST_SHAPE).register(), BASE + 0x1_0000));
    assert_eq!((header.ia_bits, header.start_level), (40, 1));
    let seen: Vec<_> = answer.records().iter().map(|r| (r.ia, r.level, RecordKind(r.kind), r.descriptor)).collect();
    let expected = [
        (0x4000_0000, 2, RecordKind::LEAF, 0x4000_04fd),
        (0x4020_0000, 3, RecordKind::INVALID, 0x2000_0000_0000_0002),
        (0x4020_1000, 3, RecordKind::INVALID, 0),
    ];
    assert_eq!(seen, expected);
}

/// In both forms of TCR_EL2, from four levels to five, with 52-bit addresses.
#[test]
fn good_hyp_has_the_geometry_of_its_tcr_el2() {
    for name in ["el2_4k_48", "el2_4k_39_e2h", "el2_4k_52_e2h"] {
        let shape = shape(name);
        let hypervisor = hypervisor(name);
        for answer in
            [dump(&hypervisor, Target::HYP, 0x8000_0000, u64::MAX), walk(&hypervisor, Target::HYP, 0x8000_0123)]
        {
            assert_status(&answer, Status::OK);
            let header = answer.header().unwrap();
            assert_eq!((header.target, header.vmid, header.flags), (Target::HYP.0, 0, 0), "{name}");
            assert_eq!((header.vtcr, header.mair), (shape.register(), MAIR), "{name}");
            assert_eq!((header.ia_bits.into(), header.start_level), (shape.ia_bits, shape.start_level), "{name}");
            assert_eq!((header.page_shift, u32::from(header.pa_bits)), (12, shape.pa_bits), "{name}");
            assert_eq!(header.table_features & table_features::HVHE != 0, name.ends_with("e2h"), "{name}");
            let leaf = answer.records().into_iter().find(|record| record.kind == RecordKind::LEAF.0).unwrap();
            assert_eq!((leaf.ia, leaf.oa, leaf.level, leaf.count), (0x8000_0000, 0x9000_0000, 3, 1), "{name}");
            // XNTable, which both forms know.
            assert_eq!((leaf.flags & record_flags::INHERITED) >> 11, 0b10, "{name}");
        }
        let beyond = walk(&hypervisor, Target::HYP, shape.ia_end());
        assert_status(&beyond, Status::BAD_RANGE);
    }
}

#[test]
fn bad_hyp_not_permitted() {
    let mut hypervisor = hypervisor("el2_4k_48");
    let hello = |hypervisor: &Hypervisor| hypervisor.call([0, ABI_VERSION.to_bits().into(), 0, 0, 0, 0, 0]).x3;
    assert_ne!(hello(&hypervisor) & features::HYP_STAGE1, 0);
    hypervisor.permitted.hyp = false;
    assert_eq!(hello(&hypervisor) & features::HYP_STAGE1, 0);
    assert_ne!(hello(&hypervisor) & features::HOST_STAGE2, 0);
    // Reserved bits of the target open no way around.
    for target in [Target::HYP, Target(Target::HYP.0 | 1), Target(Target::HYP.0 | 1 << 55)] {
        for answer in [dump(&hypervisor, target, 0, u64::MAX), walk(&hypervisor, target, 0x8000_0000)] {
            assert_status(&answer, Status::HYP_NOT_PERMITTED);
            answer.assert_untouched();
        }
    }
    assert_eq!(hypervisor.locks.get(), 0);
    assert_status(&dump(&hypervisor, Target::HOST, 0, u64::MAX), Status::OK);
}

#[test]
fn bad_hyp_registers() {
    let mut hypervisor = hypervisor("el2_4k_48");
    // TG0 reserved; T0SZ of 52 bits without the feature; of 12 bits.
    for tcr in [3 << 14, 12, 52] {
        hypervisor.vtcr = Some(1 << 31 | 5 << 16 | tcr);
        let answer = dump(&hypervisor, Target::HYP, 0, u64::MAX);
        assert_status(&answer, Status::BAD_GEOMETRY);
        answer.assert_untouched();
    }
    assert_status(
        &hypervisor.call([u64::from(Op::DUMP.0) | u64::from(DumpFlags::ATOMIC.0) << 32, SLOT_PFN, 2 << 56, 0, 0, 0, 0]),
        Status::BAD_GEOMETRY,
    );
}
