// SPDX-License-Identifier: GPL-2.0-only
//! What ioctls and reads do with the caller's memory.

mod fake;

use fake::{a_dump, a_hello, a_start, an_advance, Fake};
use s2dump_abi::hypercall::{Op, Status};
use s2dump_abi::ioctl::{self, Advance, Hello, Start};
use s2dump_abi::target::Target;
use s2dump_abi::version::ABI_VERSION;
use s2dump_host_driver::errno::Errno;
use s2dump_host_driver::file::{self, Argument, Buffer};
use s2dump_host_driver::session::Session;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const SLOTS: u32 = 4;
/// Bytes of the fake's slot with one range, and of an END slot.
const RANGE_BYTES: usize = 160;
const END_BYTES: usize = 128;

/// Memory of a caller, of which only so many bytes are there.
struct Memory {
    bytes: Vec<u8>,
    writes: usize,
}

impl Memory {
    fn of(value: &(impl IntoBytes + Immutable)) -> Self {
        Self { bytes: value.as_bytes().to_vec(), writes: 0 }
    }

    fn value<T: FromBytes>(&self) -> T {
        T::read_from_bytes(&self.bytes).expect("whole")
    }
}

impl Argument for Memory {
    fn read(&mut self, into: &mut [u8]) -> Result<(), Errno> {
        into.copy_from_slice(self.bytes.get(..into.len()).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        self.writes += 1;
        self.bytes.get_mut(offset..offset + from.len()).ok_or(Errno::EFAULT)?.copy_from_slice(from);
        Ok(())
    }
}

/// A buffer for `room` bytes, of which only `there` can be written.
struct Room {
    bytes: Vec<u8>,
    room: usize,
    there: usize,
}

impl Room {
    fn new(room: usize, there: usize) -> Self {
        Self { bytes: Vec::new(), room, there }
    }
}

impl Buffer<Fake> for Room {
    fn room(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn put(&mut self, fake: &Fake, slot: u32, offset: usize, len: usize) -> Result<usize, Errno> {
        let len = len.min(self.there.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&fake.slots[slot as usize][offset..offset + len]);
        Ok(len)
    }
}

fn started(calls: u64) -> (Session, Fake) {
    let (mut session, mut fake) = (Session::new(SLOTS), Fake::new(SLOTS as usize, calls));
    session.start(&mut fake, &mut a_dump()).expect("start");
    (session, fake)
}

/// Performs an ioctl in a new session; returns the errno, 0 if none.
fn errno_of(fake: &mut Fake, command: u32, memory: &mut Memory) -> i32 {
    let mut session = Session::new(SLOTS);
    file::ioctl(&mut session, fake, command, memory).map_or_else(|error| error.to_errno().0, |()| 0)
}

#[test]
fn good_hello_start_advance() {
    let (mut session, mut fake) = (Session::new(SLOTS), Fake::new(SLOTS as usize, 2));
    let mut hello = Memory::of(&a_hello());
    file::ioctl(&mut session, &mut fake, ioctl::HELLO, &mut hello).expect("hello");
    assert_eq!(hello.value::<Hello>().slots, SLOTS);

    let mut start = Memory::of(&a_dump());
    file::ioctl(&mut session, &mut fake, ioctl::START, &mut start).expect("start");
    assert_eq!(start.writes, 0, "a start that began cannot fail any more");

    let mut advance = Memory::of(&an_advance(0));
    file::ioctl(&mut session, &mut fake, ioctl::ADVANCE, &mut advance).expect("advance");
    assert_eq!(advance.value::<Advance>().filled, 3, "two ranges and the end");
}

#[test]
fn bad_hello_of_another_size_gets_the_version() {
    let smaller = (ioctl::HELLO & !(0x3fff << 16)) | 8 << 16;
    let mut memory = Memory { bytes: vec![0; 8], writes: 0 };

    let errno = errno_of(&mut Fake::new(1, 1), smaller, &mut memory);

    assert_eq!(errno, Errno::EINVAL.0);
    assert_eq!(memory.bytes, [[0; 4], ABI_VERSION.to_bits().to_ne_bytes()].concat());
}

#[test]
fn bad_unknown_command_touches_nothing() {
    let mut memory = Memory { bytes: vec![7; 96], writes: 0 };
    assert_eq!(errno_of(&mut Fake::new(1, 1), 0xc040_b977, &mut memory), Errno::ENOTTY.0);
    assert_eq!((memory.bytes, memory.writes), (vec![7; 96], 0));
}

#[test]
fn bad_refused_start_gets_the_status() {
    let mut memory = Memory::of(&Start { target: Target::guest(0x1001).0, ..a_dump() });
    assert_ne!(errno_of(&mut Fake::new(1, 1), ioctl::START, &mut memory), 0);
    assert_eq!(memory.value::<Start>().status, Status::NO_SUCH_VM.0);
}

#[test]
fn bad_start_under_lockdown_makes_no_call() {
    let mut fake = Fake { is_locked_down: true, ..Fake::new(1, 1) };
    assert_eq!(errno_of(&mut fake, ioctl::START, &mut Memory::of(&a_start(Op::LIST))), 1);
    assert_eq!(fake.calls, 0);
}

#[test]
fn bad_argument_outside_of_memory() {
    for command in [ioctl::HELLO, ioctl::START, ioctl::ADVANCE] {
        let mut memory = Memory { bytes: vec![0; 31], writes: 0 };
        assert_eq!(errno_of(&mut Fake::new(1, 1), command, &mut memory), Errno::EFAULT.0, "{command:#x}");
    }
}

#[test]
fn good_read_of_any_size_gives_the_same_bytes() {
    let read_all = |room| {
        let ((mut session, mut fake), mut bytes) = (started(9), Vec::new());
        loop {
            let mut buffer = Room::new(room, room);
            let count = file::read(&mut session, &mut fake, &mut buffer).expect("read");
            assert_eq!(count, buffer.bytes.len());
            if count == 0 {
                return bytes;
            }
            bytes.extend(buffer.bytes);
        }
    };
    let whole = read_all(1 << 20);
    assert_eq!(whole.len(), 9 * RANGE_BYTES + END_BYTES);
    for room in [1, 31, RANGE_BYTES - 1, RANGE_BYTES, RANGE_BYTES + 1, 4 * RANGE_BYTES] {
        assert_eq!(read_all(room), whole, "{room} bytes at a time");
    }
}

#[test]
fn good_room_for_a_slot_gets_whole_slots() {
    let (mut session, mut fake) = started(9);
    let mut buffer = Room::new(2 * RANGE_BYTES + 1, 1 << 20);
    assert_eq!(file::read(&mut session, &mut fake, &mut buffer), Ok(2 * RANGE_BYTES));
}

#[test]
fn good_read_makes_no_more_calls_than_an_advance() {
    let (mut session, mut fake) = started(63);
    let mut buffer = Room::new(1 << 20, 1 << 20);
    assert_eq!(file::read(&mut session, &mut fake, &mut buffer), Ok(file::SLOTS as usize * RANGE_BYTES));
    assert_eq!(fake.calls, u64::from(file::SLOTS));
}

#[test]
fn good_signal_ends_a_read_with_what_it_has() {
    let (mut session, mut fake) = started(9);
    fake.interrupt_at = Some(0);
    let mut buffer = Room::new(1 << 20, 1 << 20);
    assert_eq!(file::read(&mut session, &mut fake, &mut buffer), Ok(RANGE_BYTES));
}

#[test]
fn bad_memory_that_ends_gives_what_fits_then_a_fault() {
    let (mut session, mut fake) = started(9);
    let there = RANGE_BYTES + 5;
    assert_eq!(file::read(&mut session, &mut fake, &mut Room::new(1 << 20, there)), Ok(there));
    let fault = file::read(&mut session, &mut fake, &mut Room::new(1 << 20, 0)).expect_err("no memory");
    assert_eq!(fault.to_errno(), Errno::EFAULT);

    // Nothing was lost.
    let mut rest = Room::new(RANGE_BYTES - 5, 1 << 20);
    assert_eq!(file::read(&mut session, &mut fake, &mut rest), Ok(RANGE_BYTES - 5));
}
