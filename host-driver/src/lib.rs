// SPDX-License-Identifier: GPL-2.0-only
//! The driver's logic: ioctl checks, ring bookkeeping, session states.
#![no_std]
#![forbid(unsafe_code)]
