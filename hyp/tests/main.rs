// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tests of the crate, as one program, which is quicker to build than one for each file.

mod common;
mod entry;
mod examine;
mod facts;
mod fake;
mod frames;
mod hostile;
mod merging;
mod packed;
mod pages;
mod properties;
mod random;
mod targets;
mod walker;
