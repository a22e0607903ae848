// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//! VMSAv8-64 stage-2 geometry and descriptors: pure decode.
#![no_std]
#![forbid(unsafe_code)]
