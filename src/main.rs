//! The `flok` binary: parses the command line and hands over to [`flok::cli`].

fn main() {}
