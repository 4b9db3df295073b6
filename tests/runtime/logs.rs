//! Logs: written by a process of their own, read with tail, since and follow, across rotations.

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
