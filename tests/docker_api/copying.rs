//! `docker cp`: files and directories, both ways.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Stdio;

use super::docker_command::{command, ok, refused};
use super::lab::{Host, eventually};
use super::swarm::{PATIENCE, Swarm};
use super::whole::start;

pub fn goes_both_ways(swarm: &Swarm, host: usize, on: &str) {
    let task = start(swarm, host, on, "files", &["--mount", "type=tmpfs,target=/mem"], &["sleep", "1000"]);
    let (at, id) = (task.host, task.container.as_str());
    let here = at.dir.join("files");
    fs::create_dir_all(here.join("tree/sub")).unwrap();
    fs::write(here.join("tree/sub/file"), "deep").unwrap();
    fs::write(here.join("tree/a.conf"), "dotted").unwrap();
    fs::write(here.join("large"), vec![b'x'; 3_000_000]).unwrap();
    let local = |name: &str| here.join(name).display().to_string();
    let inside = |path: &str| format!("{id}:{path}");

    ok(at, &["cp", &local("large"), &inside("/root/large")]);
    assert_eq!(ok(at, &["exec", id, "wc", "-c", "/root/large"]).split_whitespace().next(), Some("3000000"));
    ok(at, &["cp", &local("tree"), &inside("/root/")]);
    assert_eq!(ok(at, &["exec", id, "cat", "/root/tree/sub/file"]), "deep");
    // Into what is mounted there, and the content alone.
    ok(at, &["cp", &local("tree/."), &inside("/mem")]);
    assert_eq!(ok(at, &["exec", id, "cat", "/mem/sub/file"]), "deep");
    ok(at, &["cp", &inside("/mem/sub"), &local("back")]);
    assert_eq!(fs::read_to_string(here.join("back/file")).unwrap(), "deep");
    // A directory's content alone, to be a new one.
    ok(at, &["cp", &inside("/mem/."), &local("content")]);
    at.ok(&["cp", &format!("{}:/mem/.", task.name), &local("content2")]);
    for into in ["content", "content2"] {
        for (name, text) in [("sub/file", "deep"), ("a.conf", "dotted")] {
            assert_eq!(fs::read_to_string(here.join(into).join(name)).unwrap(), text, "{into}/{name}");
        }
    }
    ok(at, &["cp", &inside("/root/large"), &local("large2")]);
    assert_eq!(fs::metadata(here.join("large2")).unwrap().len(), 3_000_000);
    // A link is copied, or with -L what it leads to; it leads nowhere out of the container.
    ok(
        at,
        &[
            "exec",
            id,
            "sh",
            "-c",
            "ln -s /mem/sub/file /way; ln -s /proc/1/root/etc/shadow /out; ln -s ../../../../mem /up",
        ],
    );
    ok(at, &["cp", "--follow-link", &inside("/way"), &local("followed")]);
    assert_eq!(fs::read_to_string(here.join("followed")).unwrap(), "deep");
    refused(at, &["cp", "--follow-link", &inside("/out"), &local("shadow")]);
    assert!(!here.join("shadow").exists());
    ok(at, &["cp", &inside("/up/sub/file"), &local("up")]);
    assert_eq!(fs::read_to_string(here.join("up")).unwrap(), "deep");
    assert!(refused(at, &["cp", &inside("/nowhere"), &local("x")]).contains("/nowhere"));
    assert!(refused(at, &["cp", &local("large"), &inside("/nowhere/x")]).contains("/nowhere"));
    keeps_owners_and_follows_links_where_it_is_told_to(at, id);
    is_the_users_who_runs_there(swarm, host, on);
    // What is mounted in the container is written over, and stays mounted.
    let mounts = || ok(at, &["exec", id, "grep", "-c", " /etc/hosts ", "/proc/mounts"]);
    let before = mounts();
    ok(at, &["cp", &local("tree/sub/file"), &inside("/etc/hosts")]);
    assert_eq!((ok(at, &["exec", id, "cat", "/etc/hosts"]).as_str(), mounts()), ("deep", before));
    // The whole, without what the kernel shows of itself.
    let whole = command(at, "docker").args(["cp", &inside("/"), "-"]).output().unwrap();
    let holds = |name: &str| whole.stdout.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert!(holds("/mem/sub/file\0") && !holds("proc/1/status\0"));
    // Docker's command takes no link that leads out of what it makes.
    ok(at, &["exec", id, "rm", "/up"]);
    ok(at, &["cp", &inside("/"), &local("whole")]);
    at.ok(&["cp", &format!("{}:/", task.name), &local("whole2")]);
    for into in ["whole", "whole2"] {
        assert_eq!(fs::read_to_string(here.join(into).join("mem/sub/file")).unwrap(), "deep");
        assert_eq!(fs::read_link(here.join(into).join("bin/sh")).unwrap().to_str(), Some("busybox"));
    }

    // From one's own tar, to where it may not go.
    let mut tar = command(at, "docker");
    tar.args(["cp", "-", &inside("/mem")]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tar.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&escaping()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("leaves the directory"), "{said}");
    // The container's own node tells of it. The command asks by whole seconds: what happened in this one is not told yet.
    let its_own = swarm.hosts.iter().find(|host| host.name() == on).unwrap();
    for action in ["archive-path", "extract-to-dir"] {
        let (container, event) = (format!("container={id}"), format!("event={action}"));
        let ask = ["events", "--since", "5m", "--until", "0s", "--filter", &container, "--filter", &event];
        eventually(&format!("{action} to be told"), PATIENCE, || {
            let told = ok(its_own, &ask);
            if told.contains(action) { Ok(()) } else { Err(told) }
        });
    }
    ok(at, &["service", "rm", "files"]);
}

/// By flok's own command.
fn keeps_owners_and_follows_links_where_it_is_told_to(at: &Host, id: &str) {
    let here = at.dir.join("owned");
    fs::create_dir_all(here.join("tree")).unwrap();
    fs::write(here.join("tree/file"), "mine").unwrap();
    for owned in ["tree", "tree/file"] {
        chown(here.join(owned), Some(1234), Some(2345)).unwrap();
    }
    symlink("tree/file", here.join("link")).unwrap();
    let local = |name: &str| here.join(name).display().to_string();
    let inside = |path: &str| format!("{id}:{path}");
    let stat = |path: &str| ok(at, &["exec", id, "stat", "-c", "%u:%g %F", path]).trim().to_owned();
    let owner = |path: &str| {
        let found = fs::symlink_metadata(here.join(path)).unwrap();
        (found.uid(), found.gid())
    };
    at.ok(&["cp", &local("tree"), &inside("/root/plain")]);
    at.ok(&["cp", "-a", &local("tree"), &inside("/root/kept")]);
    assert_eq!((stat("/root/plain/file"), stat("/root/plain")), ("0:0 regular file".into(), "0:0 directory".into()));
    assert_eq!(
        (stat("/root/kept/file"), stat("/root/kept")),
        ("1234:2345 regular file".into(), "1234:2345 directory".into())
    );
    at.ok(&["cp", &inside("/root/kept"), &local("plain")]);
    at.ok(&["cp", "--archive", &inside("/root/kept"), &local("kept")]);
    assert_eq!((owner("plain"), owner("plain/file")), ((0, 0), (0, 0)));
    assert_eq!((owner("kept"), owner("kept/file")), ((1234, 2345), (1234, 2345)));

    at.ok(&["cp", &local("link"), &inside("/root/a-link")]);
    at.ok(&["cp", "-L", &local("link"), &inside("/root/")]);
    assert_eq!((stat("/root/a-link"), stat("/root/link")), ("0:0 symbolic link".into(), "0:0 regular file".into()));
    // Through links to links, below the name of the first.
    ok(at, &["exec", id, "sh", "-c", "ln -s kept/file /root/near; ln -s /root/near /far"]);
    at.ok(&["cp", &inside("/far"), &local("far")]);
    assert!(here.join("far").is_symlink());
    fs::remove_file(here.join("far")).unwrap();
    at.ok(&["cp", "--follow-link", &inside("/far"), &local("")]);
    assert_eq!(
        (fs::read_to_string(here.join("far")).unwrap().as_str(), here.join("far").is_symlink()),
        ("mine", false)
    );
    // And where it is to go.
    ok(at, &["exec", id, "ln", "-s", "/root/kept", "/into"]);
    at.ok(&["cp", &local("tree/file"), &inside("/into")]);
    assert_eq!((stat("/into"), stat("/root/kept/file")), ("0:0 symbolic link".into(), "0:0 regular file".into()));
}

/// What Docker's daemon makes of `--archive`.
fn is_the_users_who_runs_there(swarm: &Swarm, host: usize, on: &str) {
    let task = start(swarm, host, on, "unprivileged", &["--user", "1000:2000"], &["sleep", "1000"]);
    let (at, id) = (task.host, task.container.as_str());
    let file = at.dir.join("owned/tree/file").display().to_string();
    ok(at, &["cp", &file, &format!("{id}:/tmp/as-it-is")]);
    ok(at, &["cp", "--archive", &file, &format!("{id}:/tmp/given")]);
    let owner = |path: &str| ok(at, &["exec", id, "stat", "-c", "%u:%g", path]).trim().to_owned();
    assert_eq!((owner("/tmp/as-it-is").as_str(), owner("/tmp/given").as_str()), ("1234:2345", "1000:2000"));
    ok(at, &["service", "rm", "unprivileged"]);
}

/// An archive with an entry `../escaped`.
fn escaping() -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..10].copy_from_slice(b"../escaped");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    [header.as_slice(), &[0; 1024]].concat()
}
