// SPDX-License-Identifier: MIT OR Apache-2.0
//! `s2dump-vmm`: a VM in a known state, for looking at with s2dump.
//!
//! Does the steps, prints what the guest's stage-2 table must hold now (one line of JSON), and with `--hold` goes on
//! with a line of steps from standard input at a time, until that ends. The VM lives as long as the process.
//!
//! ```text
//! s2dump-vmm protected touch:16 share:2 --hold
//! s2dump-vmm ordinary --mem 0x80000000+8M,huge touch:1 touch:0x80400000+1
//! s2dump-vmm protected --vcpus 2 touch:4 1/touch:0x80100000+4
//! s2dump-vmm ordinary --mem 0x80000000+8M,thp --churn 1024*2
//! s2dump-vmm protected touch:4 --lives 100
//! ```

use clap::{Parser, ValueEnum};
use s2dump_itest::script::{parse_number, MemorySpec, Place, Step};

/// Makes a VM in a known state and tells what its stage-2 table must hold.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Kind of VM.
    kind: Kind,
    /// Steps: `[VCPU/]VERB:[IPA+]PAGES[*STRIDE]` with VERB touch, read, call, share, unshare,
    /// touch-share, poison, drop, populate, large, small or forget.
    steps: Vec<Step>,
    /// Memory as `IPA+SIZE[,huge[=PATH]|,thp|,file=PATH|,memfd=NAME|,device=ADDRESS][,ro]`; the first is where steps without an address go.
    /// Without any, 32 blocks of level 2 at 0x80000000: 64M with pages of 4 KiB.
    #[arg(long = "mem")]
    memory: Vec<MemorySpec>,
    /// Number of vCPUs.
    #[arg(long, default_value_t = 1)]
    vcpus: usize,
    /// Input-address bits of the guest; as many as there can be if not given.
    #[arg(long, value_name = "BITS")]
    ipa_bits: Option<u32>,
    /// Keep the VM, its first vCPU looping in the guest on this CPU for good.
    #[arg(long, value_name = "CPU", conflicts_with = "hold")]
    spin: Option<usize>,
    /// Keep the VM, its first vCPU storing to pages (`[IPA+]PAGES[*STRIDE]`) that are taken away from it, for good.
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["hold", "spin"])]
    churn: Option<Place>,
    /// Make this many VMs beside it, that have nothing and never run.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    beside: usize,
    /// Make the VM, do the steps, tell of it and end it, so many times.
    #[arg(long, default_value_t = 1, value_name = "COUNT", conflicts_with_all = ["hold", "spin", "churn"])]
    lives: usize,
    /// Make no VM, but load a byte of the memory at this address, as any process may that maps the same file.
    #[arg(long, value_name = "IPA", value_parser = parse_number, conflicts_with_all = ["hold", "spin", "churn"])]
    peek: Option<u64>,
    /// Keep the VM and read more steps from standard input, until it ends.
    #[arg(long)]
    hold: bool,
    /// Tell output addresses too (from /proc/self/pagemap; needs root).
    #[arg(long)]
    physical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// pKVM keeps the host out of its memory.
    Protected,
    /// The host has access to its memory.
    Ordinary,
}

#[cfg(target_arch = "aarch64")]
fn main() -> anyhow::Result<()> {
    use s2dump_itest::vm::{Config, Vm};
    use std::io::Write as _;

    let args = Args::parse();
    let protected = args.kind == Kind::Protected;
    let memory = match args.memory.as_slice() {
        [] => vec![MemorySpec {
            ipa: 0x8000_0000,
            size_bytes: 32 * s2dump_itest::script::block_bytes(),
            backing: s2dump_itest::script::Backing::Anonymous,
            read_only: false,
        }],
        memory => memory.to_vec(),
    };
    if let Some(ipa) = args.peek {
        for spec in &memory {
            let memory = s2dump_itest::memory::HostMemory::map(spec)?;
            if let Some(address) = memory.host_address_of(ipa) {
                println!("load from {address:#x}");
                println!("{:#x}", memory.load(ipa)?);
            }
        }
        return Ok(());
    }
    let config = Config { protected, vcpus: args.vcpus, ipa_bits: args.ipa_bits, memory, beside: args.beside };
    let print = |vm: &Vm| -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &vm.expected(args.physical)?)?;
        writeln!(out)?;
        Ok(out.flush()?)
    };
    let begin = || -> anyhow::Result<Vm> {
        let mut vm = Vm::new(&config)?;
        args.steps.iter().try_for_each(|step| vm.step(step))?;
        print(&vm)?;
        Ok(vm)
    };
    for _ in 1..args.lives {
        drop(begin()?);
    }
    let mut vm = begin()?;
    if let Some(cpu) = args.spin {
        return vm.spin(cpu);
    }
    if let Some(place) = args.churn {
        return vm.churn(&place);
    }
    if args.hold {
        for line in std::io::stdin().lines() {
            for word in line?.split_whitespace() {
                vm.step(&word.parse()?)?;
            }
            print(&vm)?;
        }
    }
    Ok(())
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    let _ = Args::parse();
    eprintln!("s2dump-vmm: runs on AArch64 only");
    std::process::ExitCode::from(3)
}
