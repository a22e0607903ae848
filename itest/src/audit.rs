// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `s2dump audit` says.

use crate::device::Device;
use crate::program::{self, exit};
use anyhow::{ensure, Context as _, Result};
use s2dump_abi::version::features;
use serde::Deserialize;

/// An audit.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Exit code.
    pub code: i32,
    /// The rules that do not hold: ids, each with its evidence.
    pub findings: Vec<(String, String)>,
    /// What could not be settled.
    pub unsettled: u64,
    /// Rules that could not be asked.
    pub not_run: Vec<String>,
    /// Of a capture, the tables that a second pass found unchanged.
    pub at_rest: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    #[serde(default)]
    rule: String,
    unsettled: Option<u64>,
    findings: Option<usize>,
    not_run: Option<Vec<NotRun>>,
    at_rest: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct NotRun {
    rule: String,
    why: String,
}

/// Why a rule is not asked that does not hold for this kind of kernel: nothing is missing then.
const NOT_APPLICABLE: &str = "not applicable to this kernel";

impl Audit {
    /// Audits the machine, or what `arguments` say.
    ///
    /// # Errors
    ///
    /// If the answer does not make sense, or the exit code is not the one that goes with it.
    pub fn run(arguments: &[&str]) -> Result<Self> {
        let ran = program::run(&[&["audit", "--json"], arguments].concat())?;
        let mut audit = Self { code: ran.code, ..Self::default() };
        let mut told = None;
        for text in ran.stdout.lines() {
            let line: Line = serde_json::from_str(text).with_context(|| text.to_owned())?;
            match line.r#type.as_str() {
                "finding" => audit.findings.push((line.rule, text.to_owned())),
                "audit" => {
                    told = line.findings;
                    audit.unsettled = line.unsettled.with_context(|| text.to_owned())?;
                    audit.at_rest = line.at_rest.unwrap_or_default();
                    audit.not_run = line
                        .not_run
                        .unwrap_or_default()
                        .into_iter()
                        .filter(|not| not.why != NOT_APPLICABLE)
                        .map(|not| not.rule)
                        .collect();
                }
                _ => {}
            }
        }
        let told = told.with_context(|| format!("no summary: {ran:?}"))?;
        ensure!(told == audit.findings.len(), "{told} findings told, {} shown", audit.findings.len());
        let expected = match (audit.findings.is_empty(), audit.not_run.is_empty()) {
            (false, _) => exit::FINDING,
            (true, false) => exit::PARTIAL,
            (true, true) => 0,
        };
        ensure!(ran.code == expected, "exit code {} instead of {expected}: {ran:?}", ran.code);
        Ok(audit)
    }

    /// Checks that all rules were asked, and all hold. Those about table pages only if EL2 can tell table pages.
    ///
    /// # Errors
    ///
    /// Shows the first that does not.
    pub fn is_clean(&self) -> Result<()> {
        if let Some((_, evidence)) = self.findings.first() {
            anyhow::bail!("{} findings, the first: {evidence}", self.findings.len());
        }
        let tells_tables = Device::open()?.hello()?.features & features::TABLES != 0;
        let mut missing = self.not_run.iter().filter(|rule| tells_tables || !rule.starts_with("table-"));
        ensure!(missing.next().is_none(), "not asked: {:?}", self.not_run);
        Ok(())
    }
}
