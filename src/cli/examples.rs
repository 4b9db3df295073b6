//! The examples below `--help`, for the commands that do not carry theirs beside their arguments. Each line is tried by a
//! test, so that none goes stale.

use clap::Command;

/// By the words behind `flok`.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "daemon",
        "flok daemon\nflok daemon --config /etc/flok/flok.toml\nflok daemon --data-dir /srv/flok --label zone=a",
    ),
    ("swarm leave", "flok swarm leave\nflok swarm leave --force"),
    ("swarm status", "flok swarm status\nflok swarm status --format json\nflok swarm status --format '{{.leader}}'"),
    (
        "node ls",
        "flok node ls\nflok node ls --filter role=manager --filter node.label=zone=a\n\
         flok node ls --format '{{.Hostname}}: {{.Status}}'",
    ),
    ("node inspect", "flok node inspect self\nflok node inspect --format '{{.Status.Addr}}' n1"),
    ("node ps", "flok node ps\nflok node ps --filter desired-state=running n1 n2"),
    ("node rm", "flok node rm n3\nflok node rm --force n3"),
    ("node support-bundle", "flok node support-bundle\nflok node support-bundle -o n2.tar.gz n2"),
    ("node update", "flok node update --availability drain n1\nflok node update --label-add zone=a --label-rm old n1"),
    ("node promote", "flok node promote n2 n3"),
    ("node demote", "flok node demote n3"),
    (
        "service ls",
        "flok service ls\nflok service ls --filter mode=global --filter label=tier=web\n\
         flok service ls --format 'table {{.Name}}\\t{{.Replicas}}'",
    ),
    ("service ps", "flok service ps web\nflok service ps --filter node=n1 --no-trunc web db"),
    ("service inspect", "flok service inspect --pretty web\nflok service inspect --format '{{json .Spec.Labels}}' web"),
    ("service scale", "flok service scale web=5\nflok service scale --detach web=5 worker=10"),
    ("service rm", "flok service rm web worker"),
    ("service logs", "flok service logs -f web\nflok service logs --tail 100 --since 10m web"),
    ("stack ls", "flok stack ls\nflok stack ls --format '{{.Name}}'"),
    ("stack ps", "flok stack ps shop\nflok stack ps --filter desired-state=running shop"),
    ("stack services", "flok stack services shop\nflok stack services --format json shop"),
    ("stack rm", "flok stack rm shop"),
    ("stack config", "flok stack config -c stack.yml\nflok stack config -c stack.yml -c production.yml"),
    (
        "secret create",
        "flok secret create db_password ./password.txt\nopenssl rand -hex 32 | flok secret create key -\n\
         flok secret create --label tier=db --template-driver golang dsn ./dsn.tmpl",
    ),
    (
        "secret ls",
        "flok secret ls\nflok secret ls --filter label=tier=db\nflok secret ls --format 'table {{.Name}}\\t{{.Labels}}'",
    ),
    ("secret inspect", "flok secret inspect --pretty db_password\nflok secret inspect --format '{{.Spec.Labels}}' key"),
    (
        "secret update",
        "flok secret update db_password ./password.txt          new data, service by service as their update settings say\n\
         openssl rand -hex 32 | flok secret update key -\n\
         flok secret update --no-rollout key ./key.txt          services get it at their next update\n\
         flok secret update --label-add tier=a key              labels alone\n\
         flok secret rollback key                               back to the data before",
    ),
    ("secret rollback", "flok secret rollback db_password\nflok secret rollback --to 3 db_password"),
    ("secret versions", "flok secret versions db_password\nflok secret versions --format json db_password"),
    ("secret rm", "flok secret rm db_password\nflok secret rm old_key older_key"),
    (
        "config create",
        "flok config create site.conf ./site.conf\nflok config create --template-driver golang site.conf ./site.conf.tmpl\n\
         flok config create --label tier=web motd -",
    ),
    (
        "config ls",
        "flok config ls\nflok config ls --filter name=site\nflok config ls --format 'table {{.Name}}\\t{{.UpdatedAt}}'",
    ),
    (
        "config inspect",
        "flok config inspect --pretty site.conf\nflok config inspect --format '{{.Spec.Name}}' site.conf",
    ),
    (
        "config update",
        "flok config update site.conf ./site.conf                new data, service by service as their update settings say\n\
         flok config update --no-rollout site.conf ./site.conf   services get it at their next update\n\
         flok config update --label-rm old site.conf             labels alone\n\
         flok config rollback site.conf                          back to the data before",
    ),
    (
        "config rollback",
        "flok config rollback site.conf\nflok config versions site.conf && flok config rollback --to 3 site.conf",
    ),
    ("config versions", "flok config versions site.conf\nflok config versions --format json site.conf"),
    ("config rm", "flok config rm site.conf\nflok config rm old.conf older.conf"),
    ("network ls", "flok network ls\nflok network ls --filter driver=overlay --format '{{.Name}}'"),
    ("network inspect", "flok network inspect shop_default\nflok network inspect --verbose shop_default"),
    ("network rm", "flok network rm back\nflok network rm --force ingress      the routing mesh's, without a question"),
    ("network prune", "flok network prune"),
    ("network doctor", "flok network doctor\nflok network doctor web.1 db.1"),
    ("volume ls", "flok volume ls\nflok volume ls --filter label=tier=db\nflok volume ls --format '{{.Name}}'"),
    ("volume inspect", "flok volume inspect data\nflok volume inspect --format '{{.Mountpoint}}' data"),
    ("volume prune", "flok volume prune --force\nflok volume prune --all --force --filter label=scratch=yes"),
    ("volume rm", "flok volume rm data\nflok volume rm --force data"),
    ("image inspect", "flok image inspect redis:7\nflok image inspect --format '{{.Architecture}}' redis:7"),
    ("image ls", "flok image ls\nflok image ls redis\nflok image ls --filter dangling=true --quiet"),
    ("image prune", "flok image prune --force\nflok image prune --all --force --filter until=240h"),
    ("image pull", "flok image pull redis:7\nflok image pull --quiet redis:7 registry.example.org/shop/web:3"),
    ("image rm", "flok image rm redis:6\nflok image rm --force redis:6"),
    ("image tag", "flok image tag redis:7 registry.example.org/cache:1"),
    ("info", "flok info\nflok info --format '{{.Swarm.NodeID}}'"),
    ("version", "flok version\nflok version --format json"),
    (
        "completion",
        "flok completion bash > /etc/bash_completion.d/flok\n\
         flok completion zsh > /usr/share/zsh/site-functions/_flok\n\
         flok completion fish > /usr/share/fish/vendor_completions.d/flok.fish",
    ),
];

/// What the verbs of secrets and configs do, which share their arguments.
const ABOUTS: &[(&str, &str, &str)] = &[
    (
        "create",
        "Create a secret from a file, or from standard input",
        "Create a config from a file, or from standard input",
    ),
    ("ls", "List secrets", "List configs"),
    (
        "inspect",
        "Show what is known of secrets, never their data",
        "Show configs in full; with --pretty, their data as it is",
    ),
    (
        "update",
        "Give a secret new data, and roll that out to the services that use it; or change its labels",
        "Give a config new data, and roll that out to the services that use it; or change its labels",
    ),
    (
        "rollback",
        "Go back to earlier data of a secret, and roll that out to the services that use it",
        "Go back to earlier data of a config, and roll that out to the services that use it",
    ),
    (
        "versions",
        "List the versions of a secret's data, newest first, and the services that use them; never the data",
        "List the versions of a config's data, newest first, and the services that use them",
    ),
    ("rm", "Remove secrets that no service uses", "Remove configs that no service uses"),
];

/// The command with its examples, and what each verb of a secret or config is about.
pub fn with_examples(mut command: Command) -> Command {
    for (verb, secret, config) in ABOUTS {
        command = at(command, &["secret", verb], &|verb| verb.about(*secret));
        command = at(command, &["config", verb], &|verb| verb.about(*config));
    }
    for (path, examples) in EXAMPLES {
        let text = examples.lines().fold("Examples:".to_owned(), |text, line| text + "\n  " + line);
        command = at(command, &path.split(' ').collect::<Vec<_>>(), &|verb| verb.after_help(text.clone()));
    }
    command
}

fn at(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |below| at(below, rest, change))
        }
        _ => command,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    /// Nouns whose verbs all have examples.
    const WHOLE: [&str; 9] = ["service", "stack", "node", "network", "volume", "image", "swarm", "secret", "config"];

    fn leaves<'c>(command: &'c Command, path: &str, found: &mut Vec<(String, &'c Command)>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            if below.has_subcommands() { leaves(below, &path, found) } else { found.push((path, below)) }
        }
    }

    #[test]
    fn every_path_is_a_command_and_every_verb_has_examples() {
        let command = with_examples(Cli::command());
        let mut found = Vec::new();
        leaves(&command, "", &mut found);
        for (path, _) in EXAMPLES {
            assert!(found.iter().any(|(known, _)| known.trim() == *path), "there is no `flok {path}`");
        }
        for (path, verb) in
            found.iter().filter(|(path, _)| WHOLE.iter().any(|noun| path.starts_with(&format!(" {noun} "))))
        {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "`flok{path}` has no examples: write them in EXAMPLES");
            let noun = path.split(' ').nth(1).unwrap();
            let of_noun = !["secret", "config"].contains(&noun) || verb.get_about().unwrap().to_string().contains(noun);
            assert!(of_noun, "`flok{path}` is about something: say it in ABOUTS");
        }
    }

    #[test]
    fn every_example_is_a_command_line() {
        let command = with_examples(Cli::command());
        let mut found = vec![(String::new(), &command)];
        leaves(&command, "", &mut found);
        let mut tried = 0;
        for (path, verb) in found {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  flok ")) {
                // What stands behind is a remark, a pipe or a redirection.
                let line = line.split("   ").next().unwrap().split(['|', '>', '&', '#']).next().unwrap();
                let words = crate::spec::stack::split_words(line).unwrap();
                let words = std::iter::once("flok".to_owned()).chain(words);
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("flok{path}: {line}\n{error}");
                }
                tried += 1;
            }
        }
        assert!(tried > EXAMPLES.len(), "{tried} lines were tried");
    }
}
