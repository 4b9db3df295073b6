//! Containers that read: whoever is attached may go, the daemon may restart, and the input stays open.

use bytes::Bytes;
use flok::runtime::Runtime;
use flok::spec::*;
use tokio::sync::mpsc::Receiver;

use super::host::*;
use super::logs::text_of;

async fn say(runtime: &Runtime, task: u128, text: &'static str) {
    runtime.input(TaskId(task)).unwrap().send(Bytes::from(text)).await.unwrap();
}

async fn hear(live: &mut Receiver<(bool, Bytes)>, wanted: &str) -> String {
    let mut heard = String::new();
    let listening = async {
        while !heard.contains(wanted) {
            let (_, bytes) = live.recv().await.expect("it goes on");
            heard.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    let waited = tokio::time::timeout(PATIENCE, listening).await;
    waited.unwrap_or_else(|_| panic!("{wanted:?} is never heard"));
    heard
}

#[test]
#[ignore = "needs root and containerd"]
fn a_containers_input_outlives_who_is_attached_and_the_daemon() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let script =
            "printf 'ready> '; while read line; do echo got $line; [ $line != end ] || exit 9; done; echo closed";
        for (task, tty, driver) in [(1, false, "json-file"), (2, true, "json-file"), (3, false, "none")] {
            let mut given = assignment(task, script);
            given.spec.container.stdin_open = true;
            given.spec.container.tty = tty;
            given.spec.log_driver = Some(LogDriver { name: driver.into(), options: Labels::new() });
            host.want(&worker, given);
        }
        for task in [1, 2, 3] {
            reaches(&worker, task, TaskState::Running).await;
            let mut live = runtime.live(TaskId(task)).await.unwrap();
            say(&runtime, task, "one\n").await;
            hear(&mut live, "got one").await;
        }
        worker.shutdown().await;
        drop(runtime);

        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        for task in [1, 2, 3] {
            reaches(&worker, task, TaskState::Running).await;
            let mut live = runtime.live(TaskId(task)).await.unwrap();
            say(&runtime, task, "two\n").await;
            hear(&mut live, "got two").await;
            say(&runtime, task, "end\n").await;
            assert_eq!(reaches(&worker, task, TaskState::Failed).await.exit_code, Some(9));
            until("its input is gone", || runtime.input(TaskId(task)).is_err()).await;
        }
        assert_eq!(text_of(&runtime, 1).await, "ready> got one\ngot two\ngot end\n");
        assert!(text_of(&runtime, 2).await.contains("got two\r\n"));
        assert_eq!(text_of(&runtime, 3).await, "");
        // One that cannot be started leaves no log writer behind.
        let mut broken = assignment(4, "");
        broken.spec.container.command = vec!["/bin/nope".into()];
        broken.spec.container.stdin_open = true;
        host.want(&worker, broken);
        let failed = reaches(&worker, 4, TaskState::Failed).await;
        assert!(failed.message.contains("/bin/nope"), "{}", failed.message);
        until("its log writer ends", || !is_written(&runtime, 4)).await;
        worker.shutdown().await;
    });
}

/// Whether some log writer is there for the task.
fn is_written(runtime: &Runtime, task: u128) -> bool {
    let dir = runtime.task_dir(TaskId(task)).display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&dir))
}
