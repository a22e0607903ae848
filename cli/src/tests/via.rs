// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of another machine: `echo` in place of ssh says it.

use super::run_without_device;
use crate::exit_code::ExitCode;

#[test]
fn what_is_of_no_table_runs_there_as_it_was_typed() {
    for words in ["list", "list --size --json", "list -n", "probe --json", "version --json", "watch host --count 3"] {
        let ran = run_without_device(&format!("{words} --via echo"));
        assert!(ran.out.ends_with(&format!(" s2dump {words}\n")), "{words}: {}", ran.out);
        assert_eq!((ran.code, ran.err.as_str()), (ExitCode::Ok, ""), "{words}");
    }
    let ran = run_without_device("list -i - --via echo");
    assert!(ran.err.contains("does not go with -i FILE"), "{}", ran.err);
    let ran = run_without_device("list --via false");
    assert!(ran.err.contains("false: failed with exit code 1"), "{}", ran.err);
}
