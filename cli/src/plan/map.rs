// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a map will be made.

use super::Output;
use crate::args::map::Map;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// How to make a map.
#[derive(Debug)]
pub(crate) struct MapPlan {
    /// A capture, else the device.
    pub(crate) input: Option<PathBuf>,
    /// A capture that was made before.
    pub(crate) since: Option<PathBuf>,
    /// As a picture.
    pub(crate) svg: bool,
    /// Where to.
    pub(crate) output: Output,
}

impl MapPlan {
    /// Decides what `map` asks for.
    pub(super) fn new(map: Map) -> Result<Self, Failure> {
        let is_stdin = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        if is_stdin(&map.input) && is_stdin(&map.since) {
            return Err(Failure::new(ExitCode::UsageOrIo, "standard input is one capture: name the other"));
        }
        let output = Output::new(map.output);
        Ok(Self { input: map.input, since: map.since, svg: map.svg, output })
    }
}
