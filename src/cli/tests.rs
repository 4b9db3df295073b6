//! What the command line accepts.

use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_grammar_is_sound() {
    command().debug_assert();
}

#[test]
fn every_command_of_the_manual_is_accepted() {
    let lines = [
        "flok daemon --config f --data-dir d --socket s --listen-addr 0.0.0.0 --advertise-addr 1.2.3.4 --containerd c --label a=b",
        "flok swarm init --advertise-addr 1.2.3.4 --force-new-cluster",
        "flok swarm init --format json",
        "flok swarm join --token T 1.2.3.4:2377 1.2.3.5",
        "flok swarm join --token T --format json 1.2.3.4",
        "flok swarm join-token --rotate manager",
        "flok swarm join-token -q worker",
        "flok swarm leave --force",
        "flok swarm status --format json",
        "flok node ls --format json",
        "flok node inspect self --pretty",
        "flok node ps",
        "flok node update --label-add a=b --label-rm c --availability drain n",
        "flok node promote a b",
        "flok node demote a",
        "flok node rm --force a",
        "flok service create -it redis sh",
        "flok service create -t --read-only --privileged --init redis",
        "flok service create --tty=false redis",
        "flok service update --init --tty --read-only --entrypoint sh web",
        "flok service create --name web --replicas 3 -p mode=host,target=80 --mount src=a,dst=/a redis redis-server --save ''",
        "flok service ls --filter label=a=b",
        "flok service explain --format json web",
        "flok service create --schedule @hourly --schedule-time-zone Europe/Berlin --schedule-suspend backup",
        "flok service update --schedule-concurrency allow --schedule-window 10m --schedule-history 3 backup",
        "flok service update --schedule= backup",
        "flok service runs --format json backup",
        "flok service run backup",
        "flok service ps --no-trunc web",
        "flok service inspect web",
        "flok service scale web=3 db=1 --detach",
        "flok service update --image redis:7 --env-add A=1 --force web",
        "flok service rm web db",
        "flok service logs -f --tail 10 --since 10m web",
        "flok stack deploy -c a.yml -c b.yml --prune --detach --timeout 30s shop",
        "flok stack deploy -c a.yml --with-registry-auth --resolve-image never shop",
        "flok stack deploy -c a.yml --dry-run shop",
        "flok stack plan -c a.yml --prune --detailed-exitcode --format json shop",
        "flok stack ls",
        "flok stack ps shop -f desired-state=running",
        "flok stack services shop",
        "flok stack rm shop",
        "flok stack config -c a.yml",
        "flok network doctor",
        "flok network doctor web.1 db.1 --format json",
        "flok volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,mode=700 --label a=b data",
        "flok volume ls -q --filter label=a",
        "flok volume inspect --format {{.Name}} data",
        "flok volume prune --all --force",
        "flok volume rm --force a b",
        "flok image inspect redis:7 sha256:1234",
        "flok secret create --label a=b key key.txt",
        "flok secret update --label-add a=b --label-rm c key",
        "flok secret update --no-rollout --detach key -",
        "flok config update --timeout 1m --quiet site site.conf",
        "flok secret rollback --to 2 --no-rollout key",
        "flok config versions --format json site",
        "flok image load -i a.tar",
        "flok image ls -q --no-trunc --filter dangling=true redis:*",
        "flok image prune --all --force --filter until=10m",
        "flok image pull -q redis:7 web",
        "flok image rm -f redis:7 web",
        "flok image tag redis:7 reg:5000/redis:7",
        "flok events --since 10m --until 0s --filter type=service --format json",
        "flok info --format json",
        "flok attach --no-stdin web.1",
        "flok attach --detach-keys ctrl-a,d web.1",
        "flok stats --no-stream --format {{.CPUPerc}} web",
        "flok secret inspect --pretty key",
        "flok config inspect --format json site",
        "flok service create -e HOME -e A=1 --env-file a.env --env-file b.env --oom-score-adj -500 redis",
        "flok service update --env-add HOME --env-file a.env --oom-score-adj 5 web",
        "flok service logs --details web",
        "flok info --format {{.Name}}",
        "flok node ls --filter role=manager --no-trunc -q",
        "flok service inspect --format {{.ID}} web",
        "flok completion bash",
        "flok man /tmp/man",
        "flok version",
        "flok --host unix:///tmp/x.sock info",
        "flok service ls -H unix:///tmp/x.sock",
        // As Docker's users write them.
        "flok service inspect -f {{.ID}} web",
        "flok node inspect -f {{.ID}} self",
        "flok network inspect -f {{.ID}} front",
        "flok volume inspect -f {{.Name}} data",
        "flok image inspect -f {{.Id}} redis",
        "flok secret inspect -f {{.ID}} key",
        "flok config inspect -f {{.ID}} site",
        "flok info -f {{.Name}}",
        "flok version -f json",
        "flok events -f type=service",
        "flok service create -q redis",
        "flok service update -q -d --force web",
        "flok service rollback -q web",
        "flok stack deploy -q -c a.yml shop",
        "flok stack rm -d shop",
        "flok stack rm --detach=true shop",
        "flok service logs --no-trunc --no-task-ids --no-resolve web",
        "flok swarm init --availability drain --task-history-limit 2",
        "flok swarm join --availability pause --token T 1.2.3.4",
        "flok network rm -f front",
        "flok exec -e HOME -e A=1 --env-file a.env web.1 env",
        "flok image ls -a --digests",
        "flok image pull --platform linux/arm64 redis",
        "flok stats --no-trunc web",
        "flok service ps --no-resolve web",
        "flok stack ps --no-resolve shop",
        "flok node ps --no-resolve",
    ];
    for line in lines {
        if let Err(error) = parse(line) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn usage_errors_have_code_two() {
    let lines = [
        "flok",
        "flok stack deploy shop",
        "flok stack deploy -c a.yml a.b",
        "flok stack deploy -c a.yml --timeout soon shop",
        "flok service scale web",
        "flok service scale web=-1",
        "flok service create UPPER",
        "flok service create --placement-pref foo=bar redis",
        "flok service create --generic-resource gpu redis",
        "flok service create --add-host a redis",
        "flok service create --entrypoint \"x redis",
        "flok service create --ulimit nofile redis",
        "flok service create --sysctl =1 redis",
        "flok service create --security-opt foo redis",
        "flok service create --dns here redis",
        "flok service create --dns-search a,b redis",
        "flok service create --constraint node.role==manger redis",
        "flok service create --oom-score-adj 1001 redis",
        "flok service create --mount type=cluster,target=/a redis",
        "flok service create -e =x redis",
        "flok service update --args \"x web",
        "flok service update --host-add a web",
        "flok service update --placement-pref-rm zone web",
        "flok config inspect --pretty --format json site",
        "flok attach --detach-keys ctrl- web.1",
        "flok service create --schedule never backup",
        "flok service create --schedule @daily --schedule-time-zone Mars backup",
        "flok service create -p 0 redis",
        "flok node update --availability asleep n",
        "flok swarm join --token T",
        "flok swarm init --availability asleep",
        "flok stack rm --detach=false shop",
        "flok exec -e =x web.1 env",
        "flok service ls --format yaml",
        "flok service ls --format {{.Name",
        "flok service inspect --format table web",
        "flok node inspect --pretty --format json n",
        "flok completion tcsh",
        "flok nothing",
    ];
    for line in lines {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert_ne!(error.kind(), ErrorKind::DisplayHelp, "{line}");
    }
}

#[test]
fn every_command_explains_itself() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} says nothing about itself");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{path}: {} says nothing about itself", arg.get_id());
            assert!(!arg.is_positional() || arg.get_help_heading().is_none(), "{path}: {} is no option", arg.get_id());
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            check(sub, &path);
        }
    }
    check(&command(), "");
}

#[tokio::test]
async fn one_failure_does_not_keep_the_others_from_being_done() {
    let mut done = Vec::new();
    let result = each(vec![1, 2, 3], async |n| {
        if n == 2 {
            anyhow::bail!("two");
        }
        done.push(n);
        Ok(())
    })
    .await;
    assert_eq!(result.unwrap_err().to_string(), "two");
    assert_eq!(done, [1, 3]);
}
