//! The `flok` binary: hands over to [`flok::cli`].

fn main() -> std::process::ExitCode {
    // Not a command for people: containerd starts this binary so, as the writer of a container's log.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(flok::runtime::logs::WRITER_ARGUMENT) {
        let ended = flok::runtime::logs::writer::run(&args.next().unwrap_or_default());
        return std::process::ExitCode::from(u8::try_from(ended).unwrap_or(1));
    }
    flok::cli::run()
}
