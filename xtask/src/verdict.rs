// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges a console: exactly one verdict line, and no sign of trouble from the kernel.

/// How the guest's init starts its verdict.
const VERDICT: &str = "s2dump-verdict: ";
/// Texts that a healthy kernel never prints. The last lines are for reports of the debug kernel that have none of the
/// usual words.
const TROUBLE: [&str; 16] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Kernel panic",
    "HYP panic",
    "Call trace:",
    "stays shared with EL2",
    "refcount_t:",
    "detected stall",
    "INFO: task ",
    "INFO: trying to register non-static key",
    "CFI failure",
    "UBSAN",
    "ODEBUG:",
    "kernel stack corruption",
    "new suspected memory leaks",
];

/// What the console has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    verdicts: Vec<Result<i32, String>>,
    trouble: Vec<String>,
}

impl Watcher {
    /// Looks at one line of the console.
    pub(crate) fn line(&mut self, line: &str) {
        // A kernel message may have come before it on the same line.
        if let Some((_, verdict)) = line.split_once(VERDICT) {
            self.verdicts.push(parse(verdict.trim()).ok_or_else(|| line.to_owned()));
        }
        if TROUBLE.iter().any(|sign| line.contains(sign)) {
            self.trouble.push(line.to_owned());
        }
    }

    /// Returns whether the guest has said how it ended.
    pub(crate) fn has_verdict(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// Looks for trouble only. This is for a guest that is not meant to end.
    ///
    /// # Errors
    ///
    /// Says what the kernel complained about.
    pub(crate) fn trouble(&self) -> Result<(), String> {
        match self.trouble.first() {
            Some(first) => Err(format!("the kernel complains ({} lines), first: {first}", self.trouble.len())),
            None => Ok(()),
        }
    }

    /// Returns the guest's exit code, when all is well otherwise.
    ///
    /// # Errors
    ///
    /// Says what is wrong: trouble on the console, or not exactly one verdict.
    pub(crate) fn end(&self) -> Result<i32, String> {
        self.trouble()?;
        match self.verdicts.as_slice() {
            [Ok(code)] => Ok(*code),
            [Err(line)] => Err(format!("a verdict that makes no sense: {line}")),
            [] => Err("the guest ended without a verdict".into()),
            more => Err(format!("{} verdicts instead of one", more.len())),
        }
    }
}

/// Returns the exit code a verdict stands for.
fn parse(verdict: &str) -> Option<i32> {
    match verdict {
        "pass" => Some(0),
        _ => verdict.strip_prefix("fail ")?.parse().ok().filter(|code| *code != 0),
    }
}

/// Returns whether a line is the kernel's log, not a program's output: it starts with `[    1.234567]`.
pub(crate) fn is_kernel_log(line: &str) -> bool {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(time, _)| time.trim());
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    time.and_then(|time| time.split_once('.')).is_some_and(|(seconds, micros)| is_digits(seconds) && is_digits(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(console: &str) -> Result<i32, String> {
        let mut watcher = Watcher::default();
        console.lines().for_each(|line| watcher.line(line));
        watcher.end()
    }

    #[test]
    fn good_verdicts() {
        assert_eq!(judge("[    0.1] booting\ns2dump-verdict: pass\n"), Ok(0));
        assert_eq!(judge("s2dump-verdict: fail 3\n[    0.9] reboot: Power down"), Ok(3));
        assert_eq!(judge("[    0.9] x: s2dump-verdict: pass"), Ok(0), "behind a kernel message without its newline");
    }

    #[test]
    fn bad_none_two_or_nonsense() {
        assert!(judge("").is_err());
        assert!(judge("s2dump-verdict: pass\ns2dump-verdict: pass").is_err());
        for verdict in ["", "passed", "fail", "fail 0", "fail x"] {
            assert!(judge(&format!("s2dump-verdict: {verdict}")).is_err(), "{verdict:?}");
        }
    }

    #[test]
    fn bad_trouble_outweighs_a_pass() {
        for trouble in ["[    0.5] WARNING: CPU: 0 PID: 1 at x", "BUG: sleeping", "Internal error: Oops: 1"] {
            let error = judge(&format!("{trouble}\ns2dump-verdict: pass")).unwrap_err();
            assert!(error.contains(trouble), "{error}");
            let mut watcher = Watcher::default();
            watcher.line("nothing of note");
            assert_eq!(watcher.trouble(), Ok(()));
            watcher.line(trouble);
            assert!(watcher.trouble().is_err());
        }
    }

    #[test]
    fn kernel_log_has_a_time() {
        assert!(is_kernel_log("[    0.000000] Booting Linux"));
        assert!(is_kernel_log("[  123.456789][    T1] x"));
        assert!(!is_kernel_log("[] empty"));
        assert!(!is_kernel_log("[1.2.3] version"));
        assert!(!is_kernel_log("0x0000000080000000-0x0000000081200000"));
    }
}
