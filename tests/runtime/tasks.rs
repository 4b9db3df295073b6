//! Tasks from assignment to outcome.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{ExecProcessRequest, StartRequest};
use containerd_client::tonic::Request;
use containerd_client::with_namespace;
use flok::agent::FoundState;
use flok::runtime::logs::LogQuery;
use flok::runtime::{Exec, Runtime, RuntimeError};
use flok::spec::*;

use super::host::*;

#[test]
#[ignore = "needs root and containerd"]
fn a_task_runs_until_it_is_stopped_and_leaves_nothing() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, assignment(1, "trap 'exit 0' TERM; echo ready; while :; do busybox sleep 1 & wait; done"));
        let running = reaches(&worker, 1, TaskState::Running).await;
        assert!(running.pid.is_some() && running.container_id.as_ref().is_some_and(|id| id.len() == 64));
        let mut log = runtime.logs(TaskId(1), LogQuery { follow: true, ..Default::default() }).unwrap();
        assert_eq!(log.recv().await.unwrap().text, "ready\n", "its trap is set");

        host.desire(&worker, TaskId(1), DesiredState::Shutdown);
        let ended = reaches(&worker, 1, TaskState::Shutdown).await;
        assert_eq!(ended.exit_code, Some(0));
        assert!(ended.ran_for.is_some());

        host.forget(&worker, TaskId(1));
        is_gone(&worker, 1).await;
        until("its files are removed", || !runtime.task_dir(TaskId(1)).exists()).await;
        let outcomes = host.path().join("outcomes");
        until("its outcome is forgotten", || fs::read_dir(&outcomes).unwrap().count() == 0).await;
        assert!(runtime.found().await.unwrap().is_empty());
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn ends_are_told_in_dockers_words() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, assignment(1, "exit 0"));
        host.want(&worker, assignment(2, "exit 3"));
        let mut missing = assignment(3, "");
        missing.spec.container.command = vec!["/bin/nope".into()];
        host.want(&worker, missing);
        let mut absent = assignment(4, "");
        absent.spec.container.image = "127.0.0.1:1/none:latest".into();
        host.want(&worker, absent);
        let mut broken = assignment(5, "");
        broken.spec.container.user = Some("nobody".into());
        host.want(&worker, broken);

        assert_eq!(reaches(&worker, 1, TaskState::Complete).await.exit_code, Some(0));
        let failed = reaches(&worker, 2, TaskState::Failed).await;
        assert_eq!((failed.exit_code, failed.message.as_str()), (Some(3), "task: non-zero exit (3)"));
        let failed = reaches(&worker, 3, TaskState::Failed).await;
        assert!(failed.message.contains("/bin/nope") && failed.message.contains("no such file"), "{}", failed.message);
        let rejected = reaches(&worker, 5, TaskState::Rejected).await;
        assert!(rejected.message.contains("nobody"), "{}", rejected.message);
        let rejected = reaches(&worker, 4, TaskState::Rejected).await;
        assert!(rejected.message.contains("127.0.0.1:1"), "{}", rejected.message);
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn containers_outlive_the_daemon_and_are_adopted() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        for (task, script) in [
            (1, "exec busybox sleep 1000"),
            (2, "while ! busybox test -e /data/end; do busybox sleep 0.1; done; exit 5"),
        ] {
            let mut given = assignment(task, script);
            given.spec.container.mounts = vec![mount(MountKind::Volume, Some(&format!("v{task}")), "/data")];
            given.spec.container.stop_signal = Some("SIGKILL".into());
            host.want(&worker, given);
        }
        let before = reaches(&worker, 1, TaskState::Running).await;
        reaches(&worker, 2, TaskState::Running).await;
        worker.shutdown().await;
        drop(runtime);

        // The second one ends while nobody watches.
        fs::write(host.path().join("volumes/v2/_data/end"), "").unwrap();
        let dir = host.path().to_owned();
        until("the process is gone", || runs_of(&dir, "/data/end") == 0).await;

        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        let after = reaches(&worker, 1, TaskState::Running).await;
        assert_eq!((after.pid, &after.container_id), (before.pid, &before.container_id));
        let ended = reaches(&worker, 2, TaskState::Failed).await;
        assert_eq!(ended.exit_code, Some(5));

        // Still held, and still stoppable, by the signal it was made with.
        host.desire(&worker, TaskId(1), DesiredState::Shutdown);
        assert_eq!(reaches(&worker, 1, TaskState::Shutdown).await.exit_code, Some(137));
        worker.shutdown().await;
    });
}

fn runs_of(_dir: &std::path::Path, text: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("test -e {text}; do"))
        })
        .count()
}

#[test]
#[ignore = "needs root and containerd"]
fn a_dead_containerd_is_replaced_and_its_containers_go_on() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(
            &worker,
            assignment(1, "while ! busybox test -e /data/end; do busybox sleep 0.1; done; exit 6")
                .with_volume("v", "/data"),
        );
        let before = reaches(&worker, 1, TaskState::Running).await;
        // A probe that cannot be run for a while is no failed one.
        let mut checked = assignment(3, "exec busybox sleep 1000");
        checked.spec.container.healthcheck = Some(Healthcheck {
            test: vec!["CMD".into(), "busybox".into(), "true".into()],
            interval: Some(Duration::from_millis(20)),
            retries: Some(1),
            ..Healthcheck::default()
        });
        host.want(&worker, checked);
        let healthy = report(&worker, 3, |report| report.health == Health::Healthy).await;
        let socket = host.path().join("containerd/containerd.sock");
        let pid = tokio::net::UnixStream::connect(&socket).await.unwrap().peer_cred().unwrap().pid().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();

        // It ends while no containerd is there, or while the new one comes up: noticed either way.
        fs::write(host.path().join("volumes/v/_data/end"), "").unwrap();
        let ended = reaches(&worker, 1, TaskState::Failed).await;
        assert_eq!((ended.exit_code, ended.container_id), (Some(6), before.container_id));
        host.want(&worker, assignment(2, "exit 0"));
        reaches(&worker, 2, TaskState::Complete).await;
        let after = report(&worker, 3, |_| true).await;
        assert_eq!((after.state, after.pid, after.health), (TaskState::Running, healthy.pid, Health::Healthy));
        worker.shutdown().await;
    });
}

/// As a daemon leaves it that is killed between making a command's pipes and opening them.
async fn leave_a_command(host: &Host, runtime: &Runtime, container: &str) {
    let channel = containerd_client::connect(host.path().join("containerd/containerd.sock")).await.unwrap();
    let pipe = |end: &str| {
        let path = runtime.task_dir(TaskId(1)).join(format!("exec-left.{end}"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.display().to_string()
    };
    let (stdout, stderr) = (pipe("out"), pipe("err"));
    let process = serde_json::json!({"args": ["busybox", "true"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let spec = prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: serde_json::to_vec(&process).unwrap(),
    };
    let mut tasks = TasksClient::new(channel);
    let exec = ExecProcessRequest {
        container_id: container.into(),
        exec_id: "exec-left".into(),
        stdout,
        stderr,
        spec: Some(spec),
        ..Default::default()
    };
    tasks.exec(with_namespace!(exec, "flok")).await.unwrap();
    let start = StartRequest { container_id: container.into(), exec_id: "exec-left".into() };
    tokio::spawn(async move { tasks.start(with_namespace!(start, "flok")).await });
}

#[test]
#[ignore = "needs root and containerd"]
fn what_still_runs_is_found_behind_a_command_that_nobody_reads_from_and_killed_before_it_is_removed() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, assignment(1, "exec busybox sleep 1000"));
        let running = reaches(&worker, 1, TaskState::Running).await;
        worker.shutdown().await;
        leave_a_command(&host, &runtime, running.container_id.as_deref().unwrap()).await;
        let found = runtime.found().await.unwrap().remove(0);
        assert!(matches!(found.state, FoundState::Running { pid, .. } if Some(pid) == running.pid), "{found:?}");
        assert!(!runtime.task_dir(TaskId(1)).join("exec-left.out").exists());

        runtime.remove_task(TaskId(1)).await.unwrap();
        assert!(runtime.found().await.unwrap().is_empty());
        let process = PathBuf::from(format!("/proc/{}", running.pid.unwrap()));
        until("its process is gone", || !process.exists()).await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn what_a_host_took_down_with_it_has_failed_and_its_volume_is_kept() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, assignment(1, "echo precious > /data/x; exec busybox sleep 1000").with_volume("v", "/data"));
        reaches(&worker, 1, TaskState::Running).await;
        let file = host.path().join("volumes/v/_data/x");
        until("the task has written", || fs::read(&file).is_ok_and(|text| !text.is_empty())).await;
        worker.shutdown().await;
        drop(runtime);
        host.kill_everything();

        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        reaches(&worker, 1, TaskState::Failed).await;
        host.want(&worker, assignment(2, "busybox cat /data/x").with_volume("v", "/data"));
        reaches(&worker, 2, TaskState::Complete).await;
        assert_eq!(super::logs::text_of(&runtime, 2).await, "precious\n");
        host.forget(&worker, TaskId(1));
        until("its files are removed", || !runtime.task_dir(TaskId(1)).exists()).await;
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn a_full_disk_is_said_and_loses_no_outcome() {
    on_a_host(|mut host| async move {
        host.mount_small_disk("48m");
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(
            &worker,
            assignment(1, "while ! busybox test -e /data/end; do busybox sleep 0.1; done; exit 5")
                .with_volume("v", "/data"),
        );
        reaches(&worker, 1, TaskState::Running).await;
        fs::write(host.path().join("volumes/v/_data/end.new"), "x").unwrap();
        let filler = host.fill_disk();

        host.want(&worker, assignment(2, "exit 0"));
        let told = reaches_or_says(&worker, 2, "cannot be saved").await;
        assert!(told.message.contains("space") || told.message.contains("full"), "{}", told.message);
        fs::rename(host.path().join("volumes/v/_data/end.new"), host.path().join("volumes/v/_data/end")).unwrap();
        // Saved at once if its end made room for that, else when there is room again.
        fs::remove_file(filler).unwrap();
        assert_eq!(reaches(&worker, 1, TaskState::Failed).await.exit_code, Some(5));
        let rejected = reaches(&worker, 2, TaskState::Rejected).await;
        assert!(rejected.message.contains("space") || rejected.message.contains("full"), "{}", rejected.message);
        host.want(&worker, assignment(3, "exit 0"));
        reaches(&worker, 3, TaskState::Complete).await;
        worker.shutdown().await;
    });
}

async fn reaches_or_says(worker: &flok::node::worker::Worker, task: u128, words: &str) -> TaskReport {
    report(worker, task, |report| report.state.is_final() || report.message.contains(words)).await
}

#[test]
#[ignore = "needs root and containerd"]
fn the_container_is_what_its_spec_says() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let script = "busybox id; busybox hostname; echo $FROM_IMAGE$MINE; busybox pwd; \
                      busybox cat /data/kept; busybox ls -ldn /data | busybox cut -d' ' -f1; busybox test ! -e /data/doomed || echo undead; \
                      busybox touch /x 2>/dev/null || echo read-only; busybox touch /tmp/x && echo writable; \
                      busybox cat /sys/fs/cgroup/pids/pids.max; busybox grep CapEff /proc/self/status; busybox grep web-host /etc/hosts | busybox wc -l";
        let mut given = assignment(1, script).with_volume("named", "/data");
        let container = &mut given.spec.container;
        container.user = Some("worker".into());
        container.hostname = Some("web-host".into());
        container.env = vec!["MINE=too".into()];
        container.read_only = true;
        container.mounts.push(mount(MountKind::Tmpfs, None, "/tmp"));
        given.spec.resources.limits.pids = 77;
        host.want(&worker, given);
        reaches(&worker, 1, TaskState::Complete).await;
        let text = super::logs::text_of(&runtime, 1).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "uid=7(worker) gid=8(worker) groups=8(worker),9(extra)");
        assert_eq!(&lines[1..5], ["web-host", "yestoo", "/data", "from the image"]);
        assert_eq!(lines[5], "drwxr-x---");
        assert_eq!(&lines[6..9], ["read-only", "writable", "77"]);
        assert!(lines[9].ends_with("0000000000000000"), "{}", lines[9]);
        assert_eq!(lines[10], "1");
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn a_prepared_task_starts_at_once_when_it_is_wanted() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let mut given = assignment(1, "exec busybox sleep 1000");
        given.desired = DesiredState::Ready;
        host.want(&worker, given);
        let ready = reaches(&worker, 1, TaskState::Ready).await;
        assert_eq!(ready.pid, None);
        host.desire(&worker, TaskId(1), DesiredState::Running);
        reaches(&worker, 1, TaskState::Running).await;
        host.forget(&worker, TaskId(1));
        is_gone(&worker, 1).await;
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn without_a_quorum_a_failed_task_is_restarted_in_its_place() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        worker.set_quorum(false);
        let script = "if busybox test -e /was; then exec busybox sleep 1000; fi; busybox touch /was; exit 1";
        host.want(&worker, assignment(1, script));
        let again = report(&worker, 1, |report| report.restarts_in_place == 1 && report.pid.is_some()).await;
        assert_eq!(again.state, TaskState::Running);
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn a_process_that_ignores_its_signal_is_killed_after_the_grace() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let mut given = assignment(1, "exec busybox sleep 1000");
        given.spec.container.stop_grace = Some(std::time::Duration::from_millis(300));
        host.want(&worker, given);
        reaches(&worker, 1, TaskState::Running).await;
        host.desire(&worker, TaskId(1), DesiredState::Shutdown);
        assert_eq!(reaches(&worker, 1, TaskState::Shutdown).await.exit_code, Some(137));
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn a_running_task_is_measured_and_runs_further_commands() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let mut given = assignment(1, "while :; do :; done");
        given.spec.resources.limits.memory_bytes = 64 << 20;
        given.spec.container.stop_grace = Some(std::time::Duration::ZERO);
        host.want(&worker, given);
        reaches(&worker, 1, TaskState::Running).await;
        let command = |text: &str| Exec {
            command: vec!["/bin/sh".into(), "-c".into(), text.into()],
            env: vec!["MINE=1".into()],
            ..Default::default()
        };
        let output =
            runtime.exec(TaskId(1), &command("echo $MINE; busybox pwd; echo no >&2; exit 4"), PATIENCE).await.unwrap();
        assert_eq!(
            (output.exit_code, output.stdout.as_slice(), output.stderr.as_slice()),
            (4, &b"1\n/data\n"[..], &b"no\n"[..])
        );
        let late =
            runtime.exec(TaskId(1), &command("exec busybox sleep 1000"), std::time::Duration::from_millis(200)).await;
        assert!(matches!(late, Err(RuntimeError::Timeout { .. })), "{late:?}");
        let nope = Exec { command: vec!["/nope".into()], ..Default::default() };
        assert!(runtime.exec(TaskId(1), &nope, PATIENCE).await.unwrap_err().to_string().contains("/nope"));

        let stats = runtime.stats(TaskId(1)).await.unwrap();
        assert!(stats.cpu_total_ns > 0 && stats.memory_bytes > 0 && stats.processes >= 1, "{stats:?}");
        assert_eq!(stats.memory_limit_bytes, 64 << 20);
        let usage = runtime.disk_usage(TaskId(1)).await.unwrap();
        assert!(usage.written_bytes > 0 && usage.whole_bytes > usage.written_bytes + 100_000, "{usage:?}");
        assert!(runtime.stats(TaskId(2)).await.is_err());
        let left = fs::read_dir(runtime.task_dir(TaskId(1))).unwrap().flatten();
        assert!(left.into_iter().all(|file| !file.file_name().to_string_lossy().starts_with("exec-")));
        worker.shutdown().await;
    });
}

pub fn mount(kind: MountKind, source: Option<&str>, target: &str) -> Mount {
    Mount {
        kind,
        source: source.map(str::to_owned),
        target: target.to_owned(),
        read_only: false,
        bind: BindOptions::default(),
        volume: VolumeOptions::default(),
        tmpfs: TmpfsOptions::default(),
    }
}

#[test]
#[ignore = "needs root and containerd"]
fn a_described_device_is_handed_in_with_what_belongs_to_it() {
    on_a_host(|mut host| async move {
        fs::create_dir(host.path().join("cdi")).unwrap();
        let description = "\
cdiVersion: 0.6.0
kind: acme.com/accel
containerEdits: {env: [ACME=yes]}
devices:
- {name: zero, containerEdits: {deviceNodes: [{path: /dev/acme0, hostPath: /dev/zero, permissions: r}]}}
";
        fs::write(host.path().join("cdi/acme.yaml"), description).unwrap();
        let runtime = host.runtime().await;
        let held = GenericResource::Named { kind: "acme.com/accel".into(), value: "zero".into() };
        assert_eq!(runtime.devices(), std::slice::from_ref(&held));
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let script = "busybox head -c 3 /dev/acme0 | busybox wc -c; echo $ACME $DOCKER_RESOURCE_ACME_COM_ACCEL";
        let mut given = assignment(1, script);
        given.resources = vec![held];
        host.want(&worker, given);
        assert_eq!(reaches(&worker, 1, TaskState::Complete).await.exit_code, Some(0));
        assert_eq!(super::logs::text_of(&runtime, 1).await, "3\nyes zero\n");
        let mut gone = assignment(2, "exit 0");
        gone.resources = vec![GenericResource::Named { kind: "acme.com/accel".into(), value: "one".into() }];
        host.want(&worker, gone);
        let rejected = reaches(&worker, 2, TaskState::Rejected).await;
        assert!(rejected.message.contains("device acme.com/accel=one: "), "{}", rejected.message);
        worker.shutdown().await;
    });
}

trait WithVolume {
    fn with_volume(self, name: &str, target: &str) -> Self;
}

impl WithVolume for Assignment {
    fn with_volume(mut self, name: &str, target: &str) -> Self {
        self.spec.container.mounts.push(mount(MountKind::Volume, Some(name), target));
        self
    }
}
