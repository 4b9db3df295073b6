//! Logs: written by a process of their own, read with tail, since and follow, across rotations.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use flok::runtime::Runtime;
use flok::runtime::logs::{LogQuery, LogStream};
use flok::spec::*;

use super::host::*;

/// All that a task has written.
pub async fn text_of(runtime: &Runtime, task: u128) -> String {
    lines(runtime, task, LogQuery::default()).await.concat()
}

async fn lines(runtime: &Runtime, task: u128, query: LogQuery) -> Vec<String> {
    let mut receiver = runtime.logs(TaskId(task), query).unwrap();
    let mut lines = Vec::new();
    let whole = async {
        while let Some(line) = receiver.recv().await {
            lines.push(line.text);
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("the log ends");
    lines
}

#[test]
#[ignore = "needs root and containerd"]
fn what_a_task_writes_is_read_back_by_stream_and_from_the_end() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, assignment(1, "for i in 1 2 3; do echo out $i; done; echo err >&2; printf unfinished"));
        reaches(&worker, 1, TaskState::Complete).await;
        let mut receiver = runtime.logs(TaskId(1), LogQuery::default()).unwrap();
        let mut streams = Vec::new();
        while let Some(line) = receiver.recv().await {
            streams.push((line.stream, line.text));
        }
        assert!(streams.contains(&(LogStream::Stderr, "err\n".into())));
        assert!(streams.contains(&(LogStream::Stdout, "unfinished".into())));
        assert_eq!(streams.len(), 5);
        assert_eq!(lines(&runtime, 1, LogQuery { tail: Some(0), ..Default::default() }).await.len(), 0);
        assert_eq!(lines(&runtime, 1, LogQuery { tail: Some(2), ..Default::default() }).await.len(), 2);
        let later = LogQuery { since: Some("2100-01-01T00:00:00Z".parse().unwrap()), ..Default::default() };
        assert_eq!(lines(&runtime, 1, later).await.len(), 0);
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root and containerd"]
fn a_followed_log_ends_with_its_task_and_loses_nothing_to_rotation() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
        let mut given = assignment(1, script);
        given.desired = DesiredState::Ready;
        given.spec.log_driver =
            Some(LogDriver { name: "json-file".into(), options: labels(&[("max-size", "16k"), ("max-file", "100")]) });
        host.want(&worker, given);
        reaches(&worker, 1, TaskState::Ready).await;
        let followed = tokio::spawn({
            let runtime = runtime.clone();
            async move { lines(&runtime, 1, LogQuery { follow: true, ..Default::default() }).await }
        });
        host.desire(&worker, TaskId(1), DesiredState::Running);
        reaches(&worker, 1, TaskState::Complete).await;
        let wanted: Vec<String> = (0..2000).map(|i| format!("line {i}\n")).collect();
        assert_eq!(followed.await.unwrap(), wanted);
        assert_eq!(lines(&runtime, 1, LogQuery { tail: Some(1500), ..Default::default() }).await, wanted[500..]);
        let files = std::fs::read_dir(runtime.task_dir(TaskId(1))).unwrap().flatten();
        assert!(files.filter(|file| file.file_name().to_string_lossy().starts_with("log.json")).count() > 5);
        worker.shutdown().await;
    });
}

/// A journal of the test's own, where that of the host would be.
fn journal() -> UnixDatagram {
    let dir = "/run/systemd/journal";
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    std::fs::create_dir_all(dir).unwrap();
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    let socket = UnixDatagram::bind(format!("{dir}/socket")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn logged_by(mut given: Assignment, driver: &str, options: &[(&str, &str)]) -> Assignment {
    given.spec.log_driver = Some(LogDriver { name: driver.into(), options: labels(options) });
    given
}

#[test]
#[ignore = "needs root and containerd"]
fn lines_reach_syslog_and_the_journal_and_are_read_here_too() {
    let journal = journal();
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", collector.local_addr().unwrap());
        let script = "echo out; echo err >&2; while ! busybox test -e more; do busybox sleep 0.1; done; echo more; \
                      exec busybox sleep 1000";
        let options = [
            ("syslog-address", address.as_str()),
            ("syslog-format", "rfc5424"),
            ("syslog-facility", "local3"),
            ("tag", "{{.Name}}"),
        ];
        let mut given = logged_by(assignment(1, script), "syslog", &options);
        given.spec.container.mounts = vec![super::tasks::mount(MountKind::Volume, Some("flags"), "/data")];
        host.want(&worker, given);
        reaches(&worker, 1, TaskState::Running).await;
        let stream = collector.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let mut first = [lines.next().unwrap(), lines.next().unwrap()];
        first.sort();
        assert!(first[0].starts_with("<155>1 ") && first[0].ends_with(" web.1 - err"), "{first:?}");
        assert!(first[1].starts_with("<158>1 ") && first[1].contains(" host web.1 "), "{first:?}");

        // Whoever passes them on outlives the daemon.
        worker.shutdown().await;
        drop(runtime);
        std::fs::write(host.path().join("volumes/flags/_data/more"), "").unwrap();
        assert!(lines.next().unwrap().ends_with(" web.1 - more"));
        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        let kept = text_of(&runtime, 1).await;
        assert!(kept.contains("out\n") && kept.contains("err\n") && kept.contains("more\n"), "{kept}");

        let options =
            [("labels", "team,com.docker.swarm.service.name"), ("env", "FROM_IMAGE"), ("cache-disabled", "true")];
        let mut given = logged_by(assignment(2, "echo hi"), "journald", &options);
        given.spec.container.labels = labels(&[("team", "a")]);
        host.want(&worker, given);
        reaches(&worker, 2, TaskState::Complete).await;
        let mut entry = vec![0; 65536];
        let size = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..size]).into_owned();
        let id = &flok::runtime::container_id(TaskId(2))[..12];
        for field in [
            "MESSAGE=hi\n",
            "PRIORITY=6\n",
            "TEAM=a\n",
            "COM_DOCKER_SWARM_SERVICE_NAME=web\n",
            "FROM_IMAGE=yes\n",
            &format!("CONTAINER_ID={id}\n"),
            &format!("CONTAINER_TAG={id}\n"),
            "IMAGE_NAME=flok-test/busybox\n",
        ] {
            assert!(entry.contains(field), "{field} is not in {entry}");
        }
        assert_eq!(text_of(&runtime, 2).await, "");

        // One that is away lets the container end, and is told of.
        let away = [("syslog-address", "unixgram:///nowhere/at/all")];
        host.want(&worker, logged_by(assignment(3, "echo lost"), "syslog", &away));
        reaches(&worker, 3, TaskState::Complete).await;
        let kept = text_of(&runtime, 3).await;
        let told = "lost\nflok: 1 lines did not reach syslog at unixgram:///nowhere/at/all: No such file";
        assert!(kept.starts_with(told), "{kept}");
        worker.shutdown().await;
    });
}
