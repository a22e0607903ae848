// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lint`: the rules for what s2dump adds to EL2, checked on the objects that the kernel links; and our own
//! rules for the sources ([`source`]).
//!
//! The Rust object and its C shim are read as one program ([`image`]), each function is followed instruction by
//! instruction ([`graph`], [`a64`]), and every rule prints its figure, held or broken ([`rules`]).
//!
//! What it cannot see: the stack and the time of the kernel's own functions that the shim calls. They are the ones the
//! rule `undefined` lists, each with its reason.

mod a64;
mod circles;
pub(crate) mod differs;
mod graph;
mod image;
mod rules;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use source::check as sources;

use crate::ctx::Ctx;
use crate::kernel;
use crate::linux::objects::{self, Objects};
use anyhow::{bail, Result};
use std::path::{Path, PathBuf};

/// What to check.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Lint {
    /// EL2 objects of a kernel of yours, all of s2dump's: s2dump_rs.nvhe.o, s2dump_el2.nvhe.o and s2dump_pkvm_el2.nvhe.o
    #[arg(value_name = "OBJECT")]
    objects: Vec<PathBuf>,
}

/// Checks the objects given; without any, the sources, the objects for kernels without Rust, and the EL2 objects of the
/// kernel of `ctx`.
///
/// # Errors
///
/// If a rule is broken, or the kernel does not build.
pub(crate) fn run(ctx: &Ctx, args: &Lint) -> Result<()> {
    if !args.objects.is_empty() {
        return el2_objects(&args.objects);
    }
    let sources = sources(&ctx.root);
    let shipped = objects::build(ctx).and_then(|objects| shipped(&objects));
    let objects = kernel::build(ctx).and_then(|kernel| el2_objects(&kernel.el2_objects()));
    sources.and(shipped).and(objects)
}

/// Checks EL2 objects, prints each rule's figure and all violations.
///
/// # Errors
///
/// If an object cannot be read, or breaks a rule.
pub(crate) fn el2_objects(paths: &[impl AsRef<Path>]) -> Result<()> {
    let program = image::Program::read(paths)?;
    report("EL2 object", &rules::apply(&program, &graph::nodes(&program)))
}

/// Checks the objects that `linux apply --objects` brings, as far as that goes without a kernel.
///
/// # Errors
///
/// If an object is damaged, or breaks a rule.
pub(crate) fn shipped(objects: &Objects) -> Result<()> {
    let mut result = Ok(());
    for (index, (name, bytes)) in objects::NAMES.iter().zip(&objects.0).enumerate() {
        println!("lint: {name}.o, as it is shipped");
        let program = image::Program::parse(&[((*name).to_owned(), bytes.clone())])?;
        result = result.and(report(name, &rules::apply_shipped(&program, &graph::nodes(&program), index)));
    }
    result
}

/// Prints findings.
fn report(what: &str, findings: &[rules::Finding]) -> Result<()> {
    for finding in findings {
        println!("lint: {:<10} {}", finding.rule, finding.figure);
        for violation in &finding.violations {
            println!("lint: {:<10} BROKEN {violation}", finding.rule);
        }
    }
    match findings.iter().map(|finding| finding.violations.len()).sum::<usize>() {
        0 => Ok(()),
        count => bail!("{what}: breaks its rules in {count} places, listed above"),
    }
}
