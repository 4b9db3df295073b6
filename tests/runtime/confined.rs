//! What a container may do and use, looked at from the inside.

use std::fs;

use flok::spec::*;

use super::host::*;
use super::tasks::mount;

/// The lines that the script writes in a container of this spec.
async fn lines(host: &mut Host, script: &str, change: impl FnOnce(&mut TaskSpec)) -> Vec<String> {
    let runtime = host.runtime().await;
    host.load_busybox(&runtime).await;
    let worker = host.worker(&runtime).await;
    let mut given = assignment(1, script);
    change(&mut given.spec);
    host.want(&worker, given);
    reaches(&worker, 1, TaskState::Complete).await;
    let text = super::logs::text_of(&runtime, 1).await;
    worker.shutdown().await;
    text.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root and containerd"]
fn a_container_is_held_by_capabilities_seccomp_masks_and_read_only_paths() {
    on_a_host(|mut host| async move {
        let script = "busybox grep -E '^(CapInh|CapBnd|CapAmb|Seccomp):' /proc/self/status | busybox tr -d '\\t'; \
            busybox cat /proc/timer_list | busybox wc -c; busybox ls /sys/firmware | busybox wc -l; \
            echo 1 2>/dev/null > /proc/sys/kernel/panic || echo read-only; \
            busybox unshare -U true 2>/dev/null || echo no user namespaces; \
            busybox mknod /disk b 7 0 && busybox head -c1 /disk 2>/dev/null || echo no disk";
        let lines = lines(&mut host, script, |spec| {
            spec.container.cap_add = vec!["NET_ADMIN".into()];
            spec.container.cap_drop = vec!["CAP_CHOWN".into()];
        })
        .await;
        // Docker's fourteen, without bit 0 and with bit 12.
        let expected = ["CapInh:0000000000000000", "CapBnd:00000000a80435fa", "CapAmb:0000000000000000", "Seccomp:2"];
        assert_eq!(lines[..4], expected);
        assert_eq!(lines[4..6], ["0", "0"], "masked: {lines:?}");
        assert_eq!(lines[6..], ["read-only", "no user namespaces", "no disk"], "{lines:?}");
    });
}

#[test]
#[ignore = "needs root, containerd and cgroup v1"]
fn limits_are_in_force_and_mounts_are_where_they_were_asked_for() {
    on_a_host(|mut host| async move {
        let shared = host.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("given"), "from the host\n").unwrap();
        let script = "busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes; \
            busybox cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us; \
            busybox cat /bound/given; echo x 2>/dev/null > /bound/new || echo bound read-only; \
            busybox df -k /small | busybox tail -n 1 | busybox awk '{ print $2 }'; busybox stat -c %a /small; \
            ulimit -n; busybox hostname; busybox ip -o addr show lo | busybox grep -c 127.0.0.1";
        let source = shared.display().to_string();
        let lines = lines(&mut host, script, |spec| {
            spec.resources.limits.memory_bytes = 32 << 20;
            spec.resources.limits.nano_cpus = 500_000_000;
            let mut small = mount(MountKind::Tmpfs, None, "/small");
            small.tmpfs = TmpfsOptions { size_bytes: Some(1 << 20), mode: Some(0o1770), exec: None };
            let bound = Mount { read_only: true, ..mount(MountKind::Bind, Some(&source), "/bound") };
            spec.container.mounts = vec![small, bound];
            spec.container.ulimits = vec![Ulimit { name: "nofile".into(), soft: 77, hard: 99 }];
        })
        .await;
        assert_eq!(lines[0], (32 << 20).to_string());
        assert_eq!(lines[1].parse::<f64>().unwrap() / lines[2].parse::<f64>().unwrap(), 0.5);
        assert_eq!(lines[3..8], ["from the host", "bound read-only", "1024", "1770", "77"], "{lines:?}");
        assert_eq!(lines[8].len(), 12, "the hostname is the container's id: {lines:?}");
        assert_eq!(lines[9], "1", "loopback is up");
    });
}
