// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel command line asks the guest init to do: `s2dump.run=MODE[=ARGUMENT]`, then ` -- COMMAND...`.

use crate::run::endure::Mix;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Two VMs, and what s2dump says of them.
    Demo,
    /// The tests whose name contains the filter.
    Test(String),
    /// A shell on the console.
    Shell,
    /// The text after ` -- `, which may be in quotes, as a shell command.
    Exec(String),
    /// Measurements, for a machine started with `-icount`; the argument picks them.
    Bench(String),
    /// VMs of these many input-address bits, their tables told by the kernel, for the workstation to compare with.
    Oracle(Vec<u32>),
    /// Words of tables are changed behind pKVM's back, for the audit to find.
    Corrupt,
    /// Every table of EL2 told, for the workstation to compare with the machine's memory.
    Tables,
    /// VMs come and go for so many seconds, while all of s2dump is used at once.
    Endure(u64, Mix),
    /// So many audits in a row, while VMs come and go.
    Audits(usize),
    /// Not understood: says why.
    Unknown(String),
}

/// Reads `/proc/cmdline`.
#[must_use]
pub fn parse(text: &str) -> Run {
    let (kernel, command) = match text.trim().split_once(" -- ") {
        Some((kernel, command)) => (kernel, unquoted(command.trim())),
        None => (text.trim(), ""),
    };
    let Some(value) = kernel.split_whitespace().filter_map(|word| word.strip_prefix("s2dump.run=")).next_back() else {
        return Run::Unknown("s2dump.run= is missing from the kernel command line".into());
    };
    let (mode, argument) = value.split_once('=').unwrap_or((value, ""));
    match mode {
        "demo" => Run::Demo,
        "test" => Run::Test(argument.into()),
        "shell" => Run::Shell,
        "exec" if command.is_empty() => Run::Unknown("s2dump.run=exec needs `-- COMMAND` at the end".into()),
        "exec" => Run::Exec(command.into()),
        "bench" => Run::Bench(argument.into()),
        "endure" => {
            let (seconds, mix) = match argument.split_once(',') {
                None => (argument, Some(Mix::All)),
                Some((seconds, "calm")) => (seconds, Some(Mix::Calm)),
                Some((seconds, "hostile")) => (seconds, Some(Mix::Hostile)),
                Some((seconds, _)) => (seconds, None),
            };
            match (seconds.parse(), mix) {
                (Ok(seconds), Some(mix)) => Run::Endure(seconds, mix),
                _ => Run::Unknown(format!("s2dump.run={value}: write endure=600, or endure=600,calm or ,hostile")),
            }
        }
        "audits" => match argument.parse() {
            Ok(count) => Run::Audits(count),
            Err(_) => Run::Unknown(format!("s2dump.run={value}: write audits=300")),
        },
        "corrupt" => Run::Corrupt,
        "tables" => Run::Tables,
        "oracle" => match argument.split(',').map(str::parse).collect() {
            Ok(bits) => Run::Oracle(bits),
            Err(_) => Run::Unknown(format!("s2dump.run={value}: write numbers of bits as oracle=32,40")),
        },
        _ => Run::Unknown(format!(
            "s2dump.run={value}: known are demo, test[=FILTER], shell, exec, bench[=WHAT], oracle=BITS[,BITS...], \
             corrupt, tables, audits=COUNT, endure=SECONDS[,calm|,hostile]"
        )),
    }
}

/// Takes off one pair of quotes: to the kernel a quoted command is one argument of init, and it takes 32 at most.
fn unquoted(command: &str) -> &str {
    command.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_modes() {
        assert_eq!(parse("console=ttyAMA0 s2dump.run=demo\n"), Run::Demo);
        assert_eq!(parse("s2dump.run=test quiet"), Run::Test(String::new()));
        assert_eq!(parse("s2dump.run=test=ptdump"), Run::Test("ptdump".into()));
        assert_eq!(
            parse("s2dump.run=exec -- s2dump list --format json"),
            Run::Exec("s2dump list --format json".into())
        );
        assert_eq!(parse("s2dump.run=exec -- \"echo \"a b\"; ls\""), Run::Exec("echo \"a b\"; ls".into()));
        assert_eq!(parse("s2dump.run=exec -- echo \"a b\"; ls"), Run::Exec("echo \"a b\"; ls".into()));
        assert_eq!(parse("s2dump.run=demo s2dump.run=shell"), Run::Shell);
        assert_eq!(parse("s2dump.run=oracle=32,40"), Run::Oracle(vec![32, 40]));
        assert_eq!(parse("s2dump.run=audits=300"), Run::Audits(300));
        assert_eq!(parse("s2dump.run=endure=600"), Run::Endure(600, Mix::All));
        assert_eq!(parse("s2dump.run=endure=600,calm"), Run::Endure(600, Mix::Calm));
        assert_eq!(parse("s2dump.run=endure=600,hostile"), Run::Endure(600, Mix::Hostile));
    }

    #[test]
    fn bad_modes() {
        for text in [
            "",
            "s2dump.run=",
            "s2dump.run=dance",
            "s2dump.run=oracle",
            "s2dump.run=oracle=32,many",
            "s2dump.run=audits=all",
            "s2dump.run=endure",
            "s2dump.run=endure=600,mild",
            "s2dump.run=exec",
            "s2dump.run=exec -- ",
            "quiet -- s2dump.run=demo",
        ] {
            assert!(matches!(parse(text), Run::Unknown(_)), "{text:?}");
        }
    }
}
