//! What a usage error suggests in place of an option that a command has not. Clap goes by likeness of letters, and to
//! `service update --device` that is `--device-rm`, the opposite of what is meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

/// The error with a better tip, where there is one.
pub fn with_tip(mut error: Error, command: &Command, words: &[OsString]) -> Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else { return error };
    if let Some(meant) = meant(called(command, words), wrong) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{meant}")));
        // It shows the option that is like the wrong one.
        error.insert(ContextKind::Usage, ContextValue::None);
    }
    error
}

/// The command that the words lead to.
fn called<'a>(command: &'a Command, words: &[OsString]) -> &'a Command {
    let step = |command: &'a Command, word: &OsString| command.find_subcommand(word).unwrap_or(command);
    words.iter().fold(command, step)
}

/// What adds to a list, and else the only option that ends in those words.
fn meant<'a>(command: &'a Command, wrong: &str) -> Option<&'a str> {
    let wrong = match wrong {
        "-e" => "env",
        "-l" => "label",
        "-p" => "publish",
        long => long.strip_prefix("--")?,
    };
    let longs: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let adding = [format!("{wrong}-add"), format!("add-{wrong}")];
    if let Some(found) = longs.iter().copied().find(|long| adding.iter().any(|adding| adding == *long)) {
        return Some(found);
    }
    let ending = format!("-{wrong}");
    let ends: Vec<&str> = longs.into_iter().filter(|long| long.ends_with(&ending)).collect();
    if let [only] = ends[..] { Some(only) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn told(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = command();
        let error = command.try_get_matches_from_mut(&words).unwrap_err();
        with_tip(error, &command, &words).to_string()
    }

    #[test]
    fn an_option_of_create_is_answered_with_the_one_that_adds() {
        for flag in [
            "config",
            "constraint",
            "container-label",
            "device",
            "dns",
            "env",
            "generic-resource",
            "group",
            "label",
            "mount",
            "network",
            "placement-pref",
            "publish",
            "secret",
            "security-opt",
            "sysctl",
            "ulimit",
        ] {
            let said = told(&format!("flok -H unix:///x service update --{flag} x web"));
            assert!(said.contains(&format!("'--{flag}-add'")) && !said.contains("-rm"), "{flag}: {said}");
        }
        assert!(told("flok service update -e A=1 web").contains("'--env-add'"));
        assert!(told("flok node update --label a=b n").contains("'--label-add'"));
    }

    #[test]
    fn other_options_are_answered_with_what_is_like_them() {
        assert!(told("flok service create --time-zone Europe/Berlin x").contains("'--schedule-time-zone'"));
        assert!(told("flok service create --replica 2 x").contains("'--replicas'"));
        let said = told("flok service ls --banana");
        assert!(said.contains("--banana") && !said.contains("tip:"), "{said}");
    }
}
