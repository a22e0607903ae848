// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! The EL2 component: walker, coalescer, slot producer, handler.
#![no_std]
#![forbid(unsafe_code)]
