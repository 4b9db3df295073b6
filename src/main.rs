//! The `flok` binary: hands over to [`flok::cli`].

fn main() -> std::process::ExitCode {
    flok::cli::run()
}
