//! Volumes that are file systems of their own, mounted for real.

use std::fs;

use flok::node::worker::Worker;
use flok::runtime::mounting::is_mounted;
use flok::runtime::{Runtime, container_id};
use flok::spec::*;

use super::host::*;

/// At `/data`, from a volume with these driver options.
fn with_volume(task: u128, script: &str, volume: &str, options: &[(&str, &str)]) -> Assignment {
    let mut given = assignment(task, script);
    given.spec.container.mounts = vec![Mount {
        kind: MountKind::Volume,
        source: Some(volume.into()),
        target: "/data".into(),
        read_only: false,
        bind: BindOptions::default(),
        volume: VolumeOptions { driver_options: labels(options), ..VolumeOptions::default() },
        tmpfs: TmpfsOptions::default(),
    }];
    given.spec.container.stop_signal = Some("SIGKILL".into());
    given
}

async fn stop(host: &mut Host, worker: &Worker, task: u128) {
    host.desire(worker, TaskId(task), DesiredState::Shutdown);
    reaches(worker, task, TaskState::Shutdown).await;
}

#[test]
#[ignore = "needs root and containerd"]
fn a_volume_with_options_is_mounted_from_its_first_task_to_its_last() {
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let data = host.path().join("volumes/scratch/_data");
        let tmpfs = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=1770,noexec")];
        // By whatever name its service has for it.
        let named = with_volume(1, "echo hi >one; exec busybox sleep 1000", "{{join `` `scra` `tch`}}", &tmpfs);
        host.want(&worker, named);
        let second = "while ! busybox test -s one; do busybox sleep 0.1; done; busybox grep ' /data ' /proc/mounts >two; \
                      exec busybox sleep 1000";
        host.want(&worker, with_volume(2, second, "scratch", &tmpfs));
        until("both have written", || fs::read_to_string(data.join("two")).is_ok_and(|text| !text.is_empty())).await;
        let told = fs::read_to_string(data.join("two")).unwrap();
        assert!(told.contains("tmpfs") && told.contains("size=1024k") && told.contains("noexec"), "{told}");
        assert_eq!(fs::read_to_string(data.join("kept")).unwrap(), "from the image\n", "a new one begins with it");
        assert!(is_mounted(&data).unwrap());
        let users = runtime.volume_users().await.unwrap();
        let both = [1, 2].map(|task| container_id(TaskId(task)));
        assert!(users.len() == 1 && both.iter().all(|id| users["scratch"].contains(id)), "{users:?}");
        let refused = runtime.volumes().remove("scratch").unwrap_err().to_string();
        assert!(refused.contains("scratch is in use by task"), "{refused}");

        // The next daemon knows who uses it.
        worker.shutdown().await;
        drop(runtime);
        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        reaches(&worker, 1, TaskState::Running).await;
        stop(&mut host, &worker, 1).await;
        assert!(is_mounted(&data).unwrap() && data.join("one").exists());
        stop(&mut host, &worker, 2).await;
        until("it is unmounted", || !is_mounted(&data).unwrap()).await;
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);

        binds_a_directory(&mut host, &runtime, &worker).await;
        shuts_what_is_mounted_below(&mut host, &worker).await;
        tells_what_is_wrong(&mut host, &worker).await;
        worker.shutdown().await;
    });
}

async fn binds_a_directory(host: &mut Host, runtime: &Runtime, worker: &Worker) {
    let disk = host.path().join("disk");
    fs::create_dir_all(disk.join("sub")).unwrap();
    fs::write(disk.join("sub/here"), "").unwrap();
    let device = disk.display().to_string();
    let bind = [("type", "none"), ("device", device.as_str()), ("o", "bind")];
    let mut given = with_volume(3, "busybox test -e here && echo 3 >from", "bound", &bind);
    given.spec.container.mounts[0].volume.subpath = Some("sub".into());
    host.want(worker, given);
    assert_eq!(reaches(worker, 3, TaskState::Complete).await.exit_code, Some(0));
    assert_eq!(fs::read_to_string(disk.join("sub/from")).unwrap(), "3\n");
    assert!(
        runtime.volume_users().await.unwrap().contains_key("bound"),
        "by a path in it, as long as the container is there"
    );
    let data = host.path().join("volumes/bound/_data");
    until("it is unmounted", || !is_mounted(&data).unwrap()).await;

    // One that may only be read, without a name, goes with its task and takes nothing along.
    let read_only = [("type", "none"), ("device", device.as_str()), ("o", "bind,ro")];
    let mut given = with_volume(4, "if echo >no; then exit 7; fi; busybox test -e sub/here", "", &read_only);
    given.spec.container.mounts[0].source = None;
    host.want(worker, given);
    assert_eq!(reaches(worker, 4, TaskState::Complete).await.exit_code, Some(0));
    host.forget(worker, TaskId(4));
    is_gone(worker, 4).await;
    until("its files are removed", || !runtime.task_dir(TaskId(4)).exists()).await;
    runtime.volumes().remove("bound").unwrap();
    assert!(!host.path().join("volumes/bound").exists() && disk.join("sub/here").exists());
}

/// A read-only bind shuts what is mounted below its source as well, unless it says that this stays writable.
async fn shuts_what_is_mounted_below(host: &mut Host, worker: &Worker) {
    let outer = host.path().join("outer");
    let below = outer.join("below");
    fs::create_dir_all(&below).unwrap();
    nix::mount::mount(Some("tmpfs"), &below, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    for (task, stays, state, code) in [(10, false, TaskState::Complete, 0), (11, true, TaskState::Failed, 8)] {
        let script = "if echo >no; then exit 7; fi; if echo >below/yes; then exit 8; fi";
        let mut given = with_volume(task, script, "", &[]);
        let mount = &mut given.spec.container.mounts[0];
        mount.kind = MountKind::Bind;
        mount.source = Some(outer.display().to_string());
        mount.read_only = true;
        mount.bind.read_only_non_recursive = stays;
        host.want(worker, given);
        assert_eq!(reaches(worker, task, state).await.exit_code, Some(code));
        assert_eq!(below.join("yes").exists(), stays);
    }
    assert!(!outer.join("no").exists());
    nix::mount::umount(&below).unwrap();
}

async fn tells_what_is_wrong(host: &mut Host, worker: &Worker) {
    let nfs = [("type", "nfs"), ("device", "127.0.0.1:/x"), ("o", "soft,timeo=10,retrans=1")];
    let cifs = [("type", "cifs"), ("device", "//127.0.0.1/share"), ("o", "username=u,password=hush")];
    let missing = [("type", "none"), ("device", "/nowhere/at/all"), ("o", "bind")];
    let other = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=2m")];
    for (task, volume, options, said) in [
        (5, "db", nfs.as_slice(), "volume db: mount of 127.0.0.1:/x as nfs: "),
        (6, "share", &cifs, "volume share: mount of //127.0.0.1/share as cifs: "),
        (7, "gone", &missing, "volume gone: mount of /nowhere/at/all as none: No such file or directory"),
        (8, "scratch", &other, "volume scratch is on this node with other options (o)"),
        (9, "bad", &[("device", "/x")], "volume bad: missing required option: \"type\""),
    ] {
        host.want(worker, with_volume(task, "exit 0", volume, options));
        let rejected = reaches(worker, task, TaskState::Rejected).await;
        assert!(rejected.message.contains(said), "{}", rejected.message);
        assert!(!rejected.message.contains("hush"), "{}", rejected.message);
    }
}
