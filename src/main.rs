//! The `flok` binary: hands over to [`flok::cli`], or to the writer of a task's log, as which containerd starts it, or to
//! the resolver of this node's tasks or the mounter of a volume, as which the daemon does.

use std::path::Path;
use std::process::ExitCode;

use flok::network::dns::{self, RESOLVER_ARGUMENT};
use flok::runtime::logs::{PIPES_ARGUMENT, WRITER_ARGUMENT, writer};
use flok::runtime::mounting::{self, MOUNT_ARGUMENT};

fn main() -> ExitCode {
    // One starts with every container, so nothing is set up before it.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(target)) = (arguments.next(), arguments.next()) {
        if first == WRITER_ARGUMENT {
            std::process::exit(writer::run(&target.to_string_lossy()));
        }
        if first == PIPES_ARGUMENT {
            std::process::exit(writer::run_on_pipes(&target.to_string_lossy()));
        }
        if first == MOUNT_ARGUMENT {
            std::process::exit(mounting::run(Path::new(&target)));
        }
        if first == RESOLVER_ARGUMENT {
            std::process::exit(dns::run(Path::new(&target)));
        }
    }
    flok::cli::run()
}
