// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump version`: what this program is.

use super::{probe, Context, Stop};
use crate::exit_code::ExitCode;
use crate::format::json::FORMAT_VERSION;
use crate::VERSION;
use s2dump_abi::version::ABI_VERSION;
use serde::Serialize;
use std::io;

/// Prints what `--version` prints, or that as JSON.
pub(super) fn run(json: bool, context: &mut Context<'_>) -> Result<ExitCode, Stop> {
    #[derive(Serialize)]
    struct VersionJson {
        r#type: &'static str,
        format: &'static str,
        version: &'static str,
        s2dump: &'static str,
        commit: Option<&'static str>,
        s2dump_abi: String,
    }
    if !json {
        writeln!(context.out, "s2dump {VERSION}")?;
        return Ok(ExitCode::Ok);
    }
    let (s2dump, commit) = VERSION.split_once(" (").unwrap_or((VERSION, ""));
    let version = VersionJson {
        r#type: "version",
        format: "s2dump.version",
        version: FORMAT_VERSION,
        s2dump,
        commit: commit.strip_suffix(')'),
        s2dump_abi: probe::version(ABI_VERSION),
    };
    serde_json::to_writer(&mut *context.out, &version).map_err(io::Error::from)?;
    writeln!(context.out)?;
    Ok(ExitCode::Ok)
}
