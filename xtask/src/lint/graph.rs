// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who calls whom, and how deep the stack is there.
//!
//! The module follows the branches of each function and notes the stack depth at each instruction. So a call counts
//! with what the stack holds at that call: a tail call after the epilogue adds nothing. A loop that grows the stack is
//! noticed, because it reaches one instruction with two depths.

use super::a64::{flow, stack, Flow, Stack};
use super::image::{Callee, Program};
use std::collections::BTreeMap;

/// A function's own stack use and its calls.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The most bytes the function itself has on the stack.
    pub(crate) frame_bytes: u64,
    /// Called functions (index in [`Program::functions`]), with the bytes on the stack at the deepest such call.
    pub(crate) calls: BTreeMap<usize, u64>,
    /// Called functions that are not in the program, with the same.
    pub(crate) outside: BTreeMap<String, u64>,
    /// The reasons why the depth is uncertain.
    pub(crate) problems: Vec<String>,
}

/// Bytes on the stack, and the functions that lead there, each with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deepest {
    pub(crate) bytes: u64,
    pub(crate) path: Vec<(usize, u64)>,
}

/// Follows every function of the program.
pub(crate) fn nodes(program: &Program) -> Vec<Node> {
    (0..program.functions.len()).map(|function| follow(program, function)).collect()
}

fn follow(program: &Program, index: usize) -> Node {
    let function = &program.functions[index];
    let section = &program.sections[function.section];
    let mut node = Node::default();
    let mut depths: BTreeMap<u64, i64> = BTreeMap::new();
    let mut pending = vec![(function.start, 0)];
    while let Some((offset, depth)) = pending.pop() {
        let problem = |what: &str| format!("{}+{:#x}: {what}", function.name, offset - function.start);
        if let Some(before) = depths.insert(offset, depth) {
            if before != depth {
                node.problems.push(problem(&format!("reached with {before} and with {depth} bytes on the stack")));
            }
            continue;
        }
        let is_inside = (function.start..function.end).contains(&offset);
        let Some(word) = section.words.get(&offset).copied().filter(|_| is_inside) else {
            node.problems.push(problem("runs on where no instruction of the function is"));
            continue;
        };
        let after = match stack(word) {
            Stack::Same => depth,
            Stack::Add(bytes) => depth - bytes,
            Stack::Dynamic => {
                node.problems.push(problem("sets SP by a computed amount"));
                depth
            }
        };
        node.frame_bytes = node.frame_bytes.max(u64::try_from(after).unwrap_or(0));
        let inside = |displacement: i64| {
            let target = offset.wrapping_add_signed(displacement);
            let is_inside = !section.branches.contains_key(&offset) && (function.start..function.end).contains(&target);
            is_inside.then_some(target)
        };
        let mut leave = |displacement: i64| {
            let at = Callee::Place { section: function.section, offset: offset.wrapping_add_signed(displacement) };
            let callee = section.branches.get(&offset).unwrap_or(&at);
            node.call(program, callee, u64::try_from(after).unwrap_or(0), problem);
        };
        let next = offset + 4;
        match flow(word) {
            Flow::Next => pending.push((next, after)),
            Flow::Jump(to) => match inside(to) {
                Some(target) => pending.push((target, after)),
                None => leave(to),
            },
            Flow::Branch(to) => {
                pending.push((next, after));
                match inside(to) {
                    Some(target) => pending.push((target, after)),
                    None => leave(to),
                }
            }
            Flow::Call(to) => {
                leave(to);
                // A call at the very end of a function does not return.
                if next < function.end {
                    pending.push((next, after));
                }
            }
            Flow::Return if after != 0 => {
                node.problems.push(problem(&format!("returns with {after} bytes on the stack")))
            }
            Flow::Indirect { is_call: true } => pending.push((next, after)),
            Flow::Return | Flow::Trap | Flow::Indirect { is_call: false } => {}
        }
    }
    node
}

impl Node {
    fn call(&mut self, program: &Program, callee: &Callee, bytes: u64, problem: impl Fn(&str) -> String) {
        match callee {
            Callee::Outside(name) => {
                let most = self.outside.entry(name.clone()).or_default();
                *most = bytes.max(*most);
            }
            Callee::Place { section, offset } => match program.function_at(*section, *offset) {
                Some(function) if program.functions[function].start == *offset => {
                    let most = self.calls.entry(function).or_default();
                    *most = bytes.max(*most);
                }
                _ => self.problems.push(problem("goes to a place that is not the start of a function")),
            },
        }
    }
}

/// Returns the deepest stack from `function` on, or the cycle of calls that makes it endless.
pub(crate) fn deepest(nodes: &[Node], function: usize) -> Result<Deepest, Vec<usize>> {
    visit(nodes, function, &mut vec![None; nodes.len()], &mut Vec::new())
}

fn visit(
    nodes: &[Node],
    function: usize,
    known: &mut [Option<Deepest>],
    callers: &mut Vec<usize>,
) -> Result<Deepest, Vec<usize>> {
    if let Some(at) = callers.iter().position(|caller| *caller == function) {
        return Err(callers[at..].iter().copied().chain([function]).collect());
    }
    if let Some(deepest) = &known[function] {
        return Ok(deepest.clone());
    }
    callers.push(function);
    let own = nodes[function].frame_bytes;
    let mut most = Deepest { bytes: own, path: vec![(function, own)] };
    for (callee, bytes) in &nodes[function].calls {
        let below = visit(nodes, *callee, known, callers)?;
        if bytes + below.bytes >= most.bytes {
            let path = std::iter::once((function, *bytes)).chain(below.path).collect();
            most = Deepest { bytes: bytes + below.bytes, path };
        }
    }
    callers.pop();
    known[function] = Some(most.clone());
    Ok(most)
}
