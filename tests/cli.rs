//! The real binary, and what it says to bad input and bad surroundings that need no root: the reason, what to do, and an
//! exit code that is not 0.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Ended {
    code: i32,
    said: String,
}

/// Runs `flok ARGS...` in `dir` with nothing of this process's environment that could matter.
fn flok(dir: &Path, args: &[&str], input: &[u8]) -> Ended {
    ended(Command::new(env!("CARGO_BIN_EXE_flok")), dir, args, input)
}

fn ended(mut command: Command, dir: &Path, args: &[&str], input: &[u8]) -> Ended {
    let command = command.args(args).current_dir(dir).env_remove("FLOK_HOST").env("DOCKER_CONFIG", dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read to the end closes the pipe: that is its business.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ended { code: output.status.code().expect("it was not killed"), said }
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Deploying is refused before any daemon is looked for: none runs here.
fn refused(text: &str) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "s.yml", text);
    let ended = flok(dir.path(), &["-H", "unix:///nowhere/flok.sock", "stack", "deploy", "-c", "s.yml", "s"], b"");
    assert_eq!(ended.code, 1, "{}", ended.said);
    assert!(!ended.said.contains("cannot reach"), "{}", ended.said);
    ended
}

#[test]
fn each_kind_of_bad_stack_file_is_refused_with_its_place() {
    let web = |keys: &str| format!("services:\n  web:\n    image: i\n    {keys}\n");
    let cases = [
        (web("imag: x"), "s.yml:4:5: services.web: unknown key \"imag\"; did you mean \"image\"?"),
        (web("secrets: [a]"), "s.yml:4:15: services.web.secrets: undefined name \"a\": define it under"),
        (web("deploy: {mode: global, replicas: 2}"), "s.yml:4:38: services.web.deploy: replicas can only be used"),
        (
            web("deploy: {resources: {limits: {memory: 5x}}}"),
            "s.yml:4:43: services.web.deploy.resources.limits.memory: \"5x\" is not a size",
        ),
        (web("stop_grace_period: soon"), "\"soon\" is not a duration: write numbers with units"),
        (web("ports: [{target: 70000, mode: host}]"), "from 1 to 65535"),
        (
            web("hostname: ${NO_SUCH_VARIABLE:?name it}"),
            "required variable NO_SUCH_VARIABLE is missing a value: name it",
        ),
        ("services: {web: {image: 'a/UPPER'}}".into(), "invalid image reference \"a/UPPER\""),
        ("services: {'a b': {image: i}}".into(), "invalid name"),
        ("services: {a: {image: i}, a: {image: j}}".into(), "the key \"a\" stands here a second time"),
        ("services: [\n".into(), "invalid YAML"),
        (String::new(), "the file is empty"),
    ];
    for (text, wanted) in cases {
        let said = refused(&text).said;
        assert!(said.contains(wanted), "{text}\n{said}");
    }
}

#[test]
fn a_file_of_100_mb_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let big = std::fs::File::create(dir.path().join("big.yml")).unwrap();
    big.set_len(100 << 20).unwrap();
    let named = flok(dir.path(), &["stack", "config", "-c", "big.yml"], b"");
    assert_eq!(named.code, 1);
    assert!(
        named.said.contains("big.yml: the file has 104857600 bytes, a stack file may have 4194304"),
        "{}",
        named.said
    );
    let piped = flok(dir.path(), &["stack", "config", "-c", "-"], &vec![b'a'; 100 << 20]);
    assert_eq!(piped.code, 1);
    assert!(piped.said.contains("a stack file may have 4194304"), "{}", piped.said);
}

#[test]
fn an_alias_bomb_is_named_and_costs_no_memory() {
    let mut text = "x0: &x0 [y, y, y, y, y, y, y, y, y, y]\n".to_string();
    for level in 1..12 {
        text.push_str(&format!("x{level}: &x{level} [{}]\n", format!("*x{}, ", level - 1).repeat(10)));
    }
    text.push_str("services: {web: {image: i, command: *x11}}\n");
    let said = refused(&text).said;
    assert!(said.contains("its aliases stand for more than 200000 values"), "{said}");
    let many = format!("services: {{web: {{image: i, command: [{}]}}}}\n", "a, ".repeat(250_000));
    let said = refused(&many).said;
    assert!(said.contains("a stack file may have 200000 values"), "{said}");
}

#[test]
fn files_that_are_not_there_or_not_text_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = flok(dir.path(), &["stack", "config", "-c", "none.yml"], b"");
    assert_eq!(missing.code, 1);
    assert!(missing.said.contains("cannot read none.yml"), "{}", missing.said);
    let binary = flok(dir.path(), &["stack", "config", "-c", "-"], &[0xff, 0xfe, 0, 1]);
    assert!(binary.code == 1 && binary.said.contains("is not UTF-8 text"), "{}", binary.said);
}

#[test]
fn wrong_words_on_the_command_line_end_with_code_2_and_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["service", "create", "a/UPPER"], "invalid image reference"),
        (&["service", "create", "-p", "mode=host,target=70000", "i"], "70000"),
        (&["service", "create", "--limit-memory", "lots", "i"], "\"lots\" is not a size"),
        (&["service", "create", "--stop-grace-period", "10", "i"], "\"10\" is not a duration"),
        (&["stack", "deploy", "-c", "s.yml", "a b"], "a b"),
        (&["stack", "deploy", "-c", "s.yml", "--timeout", "soon", "s"], "\"soon\" is not a duration"),
        (&["stack", "deployy"], "deploy"),
    ];
    for (args, wanted) in cases {
        let ended = flok(dir.path(), args, b"");
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.said);
        assert!(ended.said.contains(wanted), "{args:?}: {}", ended.said);
    }
}

#[test]
fn without_a_daemon_commands_say_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    file(dir.path(), "s.yml", "services: {a: {image: i}}\n");
    for args in [&["node", "ls"][..], &["stack", "deploy", "-c", "s.yml", "s"], &["service", "logs", "a"]] {
        let ended = flok(dir.path(), &[&["-H", "unix:///nowhere/flok.sock"], args].concat(), b"");
        assert_eq!(ended.code, 1);
        assert!(
            ended.said.contains("cannot reach flok at unix:///nowhere/flok.sock: is the daemon running?"),
            "{}",
            ended.said
        );
    }
    let tcp = flok(dir.path(), &["-H", "tcp://127.0.0.1:2375", "node", "ls"], b"");
    assert!(tcp.code == 2 && tcp.said.contains("write unix:///path"), "{}", tcp.said);
}

#[test]
fn a_daemon_without_root_says_so_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Nobody's process, by a user namespace without a mapping, also where the test is root's.
    let mut command = Command::new("unshare");
    command.arg("--user").arg(env!("CARGO_BIN_EXE_flok"));
    let ended = ended(command, dir.path(), &["daemon", "--data-dir", data.to_str().unwrap()], b"");
    assert_eq!(ended.code, 1, "{}", ended.said);
    assert!(ended.said.contains("needs root") && ended.said.contains("run it as root"), "{}", ended.said);
    assert!(!data.exists());
}

#[test]
fn a_daemon_refuses_settings_it_does_not_know_by_name_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = |text: &str| file(dir.path(), "flok.toml", text).display().to_string();
    for (text, wanted) in [
        ("data-dri = \"/x\"\n", "data-dri"),
        ("listen-addr = \"nowhere\"\n", "nowhere"),
        ("reserve-memory = \"lots\"\n", "lots"),
        ("task-log-max-files = \"many\"\n", "line 1, column 22"),
        ("label = [\"=x\"]\n", "label"),
        ("= 3\n", "flok.toml"),
    ] {
        let path = config(text);
        let ended = flok(dir.path(), &["daemon", "--config", &path, "--data-dir", data.to_str().unwrap()], b"");
        assert_eq!(ended.code, 1, "{text}: {}", ended.said);
        assert!(ended.said.contains(wanted), "{text}: {}", ended.said);
        assert!(!data.exists(), "{text}");
    }
    let gone = flok(dir.path(), &["daemon", "--config", "/nowhere/flok.toml"], b"");
    assert!(gone.code == 1 && gone.said.contains("/nowhere/flok.toml"), "{}", gone.said);
}

#[test]
fn help_that_is_piped_has_no_colours_and_completions_name_the_verbs() {
    let dir = tempfile::tempdir().unwrap();
    let told = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_flok")).args(args).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let help = told(&["service", "ls", "--help"]);
    assert!(help.contains("Examples:\n  flok service ls") && !help.contains('\u{1b}'), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(told(&["completion", shell]).contains("FLOK_COMPLETE"), "{shell}");
    }
    // As a shell asks; no daemon is there, so there are verbs and options, but no names and no error.
    let socket = format!("unix://{}", dir.path().join("none.sock").display());
    let completed = |words: &[&str]| {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_flok"));
        asked.env("FLOK_COMPLETE", "fish").env("FLOK_HOST", &socket).args(["--", "flok"]).args(words);
        let output = asked.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(completed(&["stack", "de"]).contains("deploy"));
    assert!(completed(&["stack", "plan", "--detailed-"]).contains("--detailed-exitcode"));
    assert_eq!(completed(&["service", "rm", "w"]), "");
    told(&["man", "pages"]);
    for page in ["flok.1", "flok-stack.1", "flok-stack-plan.1"] {
        let text = std::fs::read_to_string(dir.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}: {text}");
    }
    assert!(!dir.path().join("pages/flok-man.1").exists(), "what is hidden has none");
}

#[test]
fn a_wrong_command_line_ends_with_two_before_a_daemon_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let at = ["-H", "unix:///nowhere/flok.sock"];
    let cases: [(&[&str], &str); 18] = [
        (&["cp", "/etc/hostname", "/tmp/x"], "write TASK:PATH for one of them"),
        (&["cp", "a:/x", "b:/y"], "both are in tasks"),
        (
            &["service", "create", "--host", "db:10.0.0.5", "a"],
            "a name with a fixed address in containers is --add-host",
        ),
        (&["service", "update", "--device", "/dev/zero", "a"], "'--device-add'"),
        (&["service", "update", "--update-parallelism", "-1", "a"], "invalid value '-1' for '--update-parallelism"),
        (&["service", "create", "--shm-size", "-1", "a"], "invalid value '-1' for '--shm-size"),
        (&["service", "scale", "--timeout", "-5", "a=1"], "invalid value '-5' for '--timeout"),
        (&["service", "scale", "--timeout", "0s", "a=1"], "to wait for nothing, say --detach"),
        (&["service", "create", "--schedule-window", "3h", "a"], "--schedule-window needs a --schedule"),
        (&["swarm", "update", "--task-history-limit", "-1"], "invalid value '-1' for '--task-history-limit"),
        (&["service", "create", "--placement-pref", "foo=bar", "a"], "\"foo=bar\" is not spread=node.labels.NAME"),
        (&["service", "create", "--generic-resource", "gpu", "a"], "\"gpu\" is not KIND=COUNT"),
        (&["service", "create", "--add-host", "a", "a"], "\"a\" is no host: write NAME:ADDRESS"),
        (&["service", "update", "--args", "\"open", "a"], "--args"),
        (&["service", "create", "--constraint", "node.role==manger", "a"], "expected manager or worker"),
        (&["service", "create", "--mode", "global", "--replicas", "2", "a"], "--replicas can only be used with"),
        (&["service", "create", "--mount", "type=cluster,target=/a", "a"], "not there yet"),
        (&["secret", "update", "key"], "there is nothing to change"),
    ];
    for (args, expected) in cases {
        let ended = flok(dir.path(), &[&at[..], args].concat(), b"");
        assert!(ended.code == 2 && ended.said.contains(expected), "{args:?}: {} {}", ended.code, ended.said);
    }
    let env_file = ["service", "create", "--env-file", "none.env", "a"];
    let ended = flok(dir.path(), &[&at[..], &env_file].concat(), b"");
    assert!(ended.code == 1 && ended.said.contains("--env-file: open none.env"), "{}", ended.said);
}
