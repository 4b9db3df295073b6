//! The `flok` binary: hands over to [`flok::cli`], or to the writer of a task's log, as which containerd starts it.

use std::process::ExitCode;

use flok::runtime::logs::{WRITER_ARGUMENT, writer};

fn main() -> ExitCode {
    // One starts with every container, so nothing is set up before it.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(target)) = (arguments.next(), arguments.next())
        && first == WRITER_ARGUMENT
    {
        std::process::exit(writer::run(&target.to_string_lossy()));
    }
    flok::cli::run()
}
