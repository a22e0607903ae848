// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `s2dump` binary; all of it is in the library, which fuzz targets reach too.

fn main() -> std::process::ExitCode {
    s2dump::main()
}
