// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots from the driver: which requests to make in which order, over any [`Session`].

use super::{errno, Fetched, SlotSource, SourceError};
use crate::frame::{self, SlotBuffer, SlotFault};
use s2dump_abi::hypercall::{DumpFlags, Op, Status};
use s2dump_abi::ioctl::{Advance, Hello, SessionState, Start};
use s2dump_abi::slot::{SlotKind, MAX_SLOT_BYTES, PLAIN_SLOT_BYTES};
use s2dump_abi::target::{Identity, Place, Target, PLACES};
use s2dump_abi::version::{features, AbiVersion, ABI_VERSION};
use std::io;

/// An open device: what it can do. [`super::ring`] has the real one.
///
/// A refusal of `hello` and `start` may have written a status and a version into the argument, beside the errno.
pub(crate) trait Session {
    /// Asks for versions, features and the size of the ring.
    fn hello(&mut self, hello: &mut Hello) -> io::Result<()>;
    /// Says hello as version 1 did, which a driver of version 1 understands.
    fn hello_1(&mut self, hello: &mut Hello) -> io::Result<()>;
    /// Maps the ring for reading: so many slots, each of so many bytes.
    fn map(&mut self, slots: u32, slot_bytes: usize) -> io::Result<()>;
    /// Starts a dump, walk or list.
    fn start(&mut self, start: &mut Start) -> io::Result<()>;
    /// Gives slots back and has others filled.
    fn advance(&mut self, advance: &mut Advance) -> io::Result<()>;
    /// Copies the slot at `index` of the ring to the beginning of `into`; false if there is none.
    fn copy_slot(&self, index: u32, into: &mut SlotBuffer) -> bool;
}

/// What to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// The list of VMs.
    List,
    /// A dump.
    Dump {
        /// Which table, as a list told it; with the root 0 whichever has this name.
        table: Identity,
        /// How.
        flags: DumpFlags,
        /// First input address.
        start: u64,
        /// First input address after; all ones for all.
        end: u64,
        /// Descriptors per call, 0 for the default.
        budget: u32,
    },
    /// What is kept about page frames.
    Frames {
        /// First physical address.
        start: u64,
        /// First physical address after; all ones for all.
        end: u64,
        /// Frames per call, 0 for the default.
        budget: u32,
    },
    /// Facts about memory and EL2.
    Facts,
    /// A frame and places, at one moment.
    Examine {
        /// Physical address of the frame.
        pa: u64,
        /// The places.
        places: [Place; PLACES],
    },
    /// Memory slots of a VM.
    Memory(Target),
    /// A walk.
    Walk {
        /// Which table, as a list told it; with the root 0 whichever has this name.
        table: Identity,
        /// The input address.
        address: u64,
    },
}

impl Query {
    /// Returns how a kernel with pages of `page_bytes` is asked, which takes whole pages only.
    fn to_start(self, page_bytes: u32) -> Start {
        let page_mask = u64::from(page_bytes) - 1;
        let up = |end: u64| end.checked_add(page_mask).map_or(u64::MAX, |end| end & !page_mask);
        let start = Start {
            size: size_of::<Start>() as u32,
            version: ABI_VERSION.to_bits(),
            op: Op::LIST.0,
            flags: 0,
            target: 0,
            start: 0,
            end: 0,
            budget: 0,
            status: 0,
            root: 0,
            places: [0; PLACES],
            reserved: [0; 2],
        };
        match self {
            Self::List => start,
            Self::Frames { start: first, end, budget } => {
                Start { op: Op::FRAMES.0, start: first & !page_mask, end: up(end), budget, ..start }
            }
            Self::Facts => Start { op: Op::FACTS.0, ..start },
            Self::Memory(target) => Start { op: Op::MEMORY.0, target: target.0, ..start },
            Self::Examine { pa, places } => {
                let places = places.map(|place| place.0);
                Start { op: Op::EXAMINE.0, start: pa & !page_mask, places, ..start }
            }
            Self::Dump { table: Identity { target, root }, flags, start: first, end, budget } => {
                let (first, end) = (first & !page_mask, up(end));
                Start { op: Op::DUMP.0, flags: flags.0, target: target.0, root, start: first, end, budget, ..start }
            }
            Self::Walk { table: Identity { target, root }, address } => {
                Start { op: Op::WALK.0, target: target.0, root, start: address, ..start }
            }
        }
    }

    /// Returns which table it is about.
    pub(crate) fn table(self) -> Option<Identity> {
        match self {
            Self::List | Self::Frames { .. } | Self::Facts | Self::Examine { .. } | Self::Memory(_) => None,
            Self::Dump { table, .. } | Self::Walk { table, .. } => Some(table),
        }
    }
}

/// No driver has more slots than this. It bounds how much a broken one can make us map.
const MAX_RING_SLOTS: u32 = 4096;

/// A session after its hello.
pub(crate) struct Device {
    session: Box<dyn Session>,
    hello: Hello,
    /// Slots that were read but END slots: each is what one call filled.
    calls: u64,
}

impl Device {
    /// Says hello and maps the ring.
    pub(crate) fn new(mut session: Box<dyn Session>) -> Result<Self, SourceError> {
        let hello = say_hello(session.as_mut())?;
        let slot_bytes = hello.slot_bytes as usize;
        let is_a_size = slot_bytes.is_power_of_two() && (PLAIN_SLOT_BYTES..=MAX_SLOT_BYTES).contains(&slot_bytes);
        let is_a_page = hello.page_bytes.is_power_of_two() && matches!(hello.page_bytes.trailing_zeros(), 12 | 14 | 16);
        if !is_a_size || !is_a_page || !(1..=MAX_RING_SLOTS).contains(&hello.slots) {
            let answer = format!("{} slots of {} bytes, pages of {}", hello.slots, hello.slot_bytes, hello.page_bytes);
            return Err(SourceError::Driver("hello", answer));
        }
        let mapped = session.map(hello.slots, slot_bytes);
        mapped.map_err(|error| SourceError::Request { request: "mapping the ring", error })?;
        Ok(Self { session, hello, calls: 0 })
    }

    /// Returns how many calls filled the slots that were read.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns whether EL2 has a feature, a bit of [`s2dump_abi::version::features`].
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.hello.features & feature != 0
    }

    /// Starts `query` and returns its slots.
    pub(crate) fn start(&mut self, query: Query) -> Result<DeviceSlots<'_>, SourceError> {
        let mut start = query.to_start(self.hello.page_bytes);
        // The same rows in fewer calls and fewer bytes.
        if start.op == Op::DUMP.0
            && DumpFlags(start.flags).contains(DumpFlags::EXACT)
            && self.hello.features & features::PACKED != 0
        {
            start.flags |= DumpFlags::PACKED.0;
        }
        self.session.start(&mut start).map_err(|error| refusal("start", start.status, error))?;
        let (table, state) = (query.table(), SessionState::RUNNING);
        Ok(DeviceSlots { device: self, table, first: 0, filled: 0, taken: 0, state, ended: false })
    }
}

/// Says who refused a request: EL2 and the driver by a status, or else the kernel, which gives an errno only.
fn refusal(request: &'static str, status: u32, error: io::Error) -> SourceError {
    match Status(status) {
        Status::OK => SourceError::Request { request, error },
        status => SourceError::Refused(status),
    }
}

/// Says hello and checks the version of the answer.
pub(crate) fn say_hello(session: &mut dyn Session) -> Result<Hello, SourceError> {
    let asked = Hello {
        size: size_of::<Hello>() as u32,
        version: ABI_VERSION.to_bits(),
        features: 0,
        el2_version: 0,
        default_budget: 0,
        slots: 0,
        slot_bytes: 0,
        status: 0,
        page_bytes: 0,
        reserved: [0; 6],
    };
    let mut hello = asked;
    let said = session.hello(&mut hello);
    // A driver that does not understand us tells its version all the same.
    let driver = AbiVersion::from_bits(hello.version);
    match said {
        _ if !ABI_VERSION.can_speak_to(driver) => Err(SourceError::DriverVersion(driver)),
        Ok(()) => Ok(hello),
        Err(error) if error.raw_os_error() == Some(errno::ENOTTY) => Err(ask_version_1(session, asked)),
        Err(error) => Err(refusal("hello", hello.status, error)),
    }
}

/// Asks a driver that does not know our hello which version of 1 it speaks, and says what came of it.
fn ask_version_1(session: &mut dyn Session, hello: Hello) -> SourceError {
    let version_1 = AbiVersion { major: 1, minor: 0 };
    let mut hello = Hello { version: version_1.to_bits(), ..hello };
    match session.hello_1(&mut hello) {
        Ok(()) => SourceError::DriverVersion(AbiVersion::from_bits(hello.version)),
        Err(error) if error.raw_os_error() == Some(errno::ENOTTY) => SourceError::NotTheDriver,
        Err(error) => SourceError::Request { request: "hello", error },
    }
}

/// The slots of one start.
///
/// Invariant: each slot of a dump or walk is of the table that was asked for, all of one if no root was named. A handle may be given to another VM once its
/// VM is gone; slots of that VM end the source, and are not shown or stored.
pub(crate) struct DeviceSlots<'a> {
    device: &'a mut Device,
    table: Option<Identity>,
    first: u32,
    filled: u32,
    taken: u32,
    state: u32,
    ended: bool,
}

impl DeviceSlots<'_> {
    /// Gives back what was taken and asks for more.
    fn advance(&mut self) -> Result<(), SourceError> {
        let mut advance = Advance {
            size: size_of::<Advance>() as u32,
            version: ABI_VERSION.to_bits(),
            release: self.taken,
            first: 0,
            filled: 0,
            state: 0,
            reserved: [0; 2],
        };
        let session = &mut self.device.session;
        session.advance(&mut advance).map_err(|error| SourceError::Request { request: "advance", error })?;
        let slots = self.device.hello.slots;
        if advance.first >= slots || advance.filled > slots {
            let answer = format!("{} slots from {} of {slots}", advance.filled, advance.first);
            return Err(SourceError::Driver("advance", answer));
        }
        (self.first, self.filled, self.state, self.taken) = (advance.first, advance.filled, advance.state, 0);
        Ok(())
    }
}

impl SlotSource for DeviceSlots<'_> {
    fn fetch(&mut self, into: &mut SlotBuffer) -> Result<Fetched, SourceError> {
        if self.ended {
            return Ok(Fetched::End);
        }
        if self.taken == self.filled {
            if self.state == SessionState::DONE && self.filled > 0 {
                return Ok(Fetched::End);
            }
            self.advance()?;
            if self.filled == 0 {
                let answer = format!("no slot and no end (state {})", self.state);
                return Err(SourceError::Driver("advance", answer));
            }
        }
        // Both are below `slots`, checked in `advance`.
        let index = (self.first + self.taken) % self.device.hello.slots;
        self.taken += 1;
        if !self.device.session.copy_slot(index, into) {
            return Err(SourceError::Driver("advance", format!("slot {index} is outside the ring")));
        }
        let slot_bytes = self.device.hello.slot_bytes as usize;
        let measured = match frame::measure(&into[..]) {
            Ok((_, used)) if used > slot_bytes => Err(SlotFault::Truncated { have: slot_bytes, used }),
            measured => measured,
        };
        let (header, used) = measured.map_err(|fault| SourceError::Driver("advance", fault.to_string()))?;
        self.ended = header.kind == SlotKind::END.0;
        self.device.calls += u64::from(!self.ended);
        if let (Some(table), SlotKind::RANGES | SlotKind::PACKED | SlotKind::WALK) = (self.table, SlotKind(header.kind))
        {
            let found = Identity { target: Target(header.target), root: header.root };
            if table.root == 0 && found.target == table.target {
                self.table = Some(found);
            } else if found != table {
                self.ended = true;
                return Err(SourceError::AnotherTable { asked: table, found });
            }
        }
        Ok(Fetched::Slot(used))
    }
}
