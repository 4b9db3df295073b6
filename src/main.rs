//! The `flok` binary: parses the command line and hands over to [`flok::cli`].

use flok::runtime::logs::{WRITER_ARGUMENT, writer};

fn main() {
    // One starts with every container, so nothing is set up before it.
    let mut arguments = std::env::args().skip(1);
    if let (Some(first), Some(target)) = (arguments.next(), arguments.next())
        && first == WRITER_ARGUMENT
    {
        std::process::exit(writer::run(&target));
    }
}
