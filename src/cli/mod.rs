//! temporary
mod daemon;
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Daemon(Box<daemon::Daemon>),
}
pub fn run() -> std::process::ExitCode {
    let Cli::Daemon(d) = Cli::parse();
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match rt.block_on(d.run()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("Error: {e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
