//! Images from registries by a daemon's configuration and a user's logins, tags that move, archives.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::docker_command;
use super::images;
use super::lab::{Lab, run};
use super::registry::{ACCOUNT, PRIVATE_ADDR, Registry};
use super::swarm::Swarm;

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn a_private_registry_is_pulled_from_by_every_node_with_the_users_login() {
    let mut lab = Lab::new(2);
    let ca = Registry::make_ca(&lab);
    let setting = format!("{PRIVATE_ADDR}={}", ca.display());
    for host in &mut lab.hosts {
        host.start_daemon(&["--registry-ca", &setting]);
    }
    let swarm = Swarm::begin(lab);
    let registry = Registry::private(&swarm);
    registry.push("whoami", "team/whoami:1");
    let image = registry.name("team/whoami:1");
    let file =
        swarm.stack_file("p", &format!("services: {{ web: {{ image: '{image}', deploy: {{ mode: global }} }} }}"));
    let deploy = |args: &[&str]| {
        let logins = swarm.dir().join("logins");
        let mut command = swarm.hosts[0].client();
        command.env("DOCKER_CONFIG", logins).args(["stack", "deploy", "-c", &file]).args(args).arg("p");
        command.output().unwrap()
    };
    let output = deploy(&["--detach"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("Warning") && said.contains("denies access"), "{said}");
    let refused = swarm.task_that(0, "p_web", "is denied its image", |task| task.state == "rejected");
    assert!(refused.error.contains("--with-registry-auth"), "{}", refused.error);

    let pair = STANDARD.encode(format!("{}:{}", ACCOUNT.0, ACCOUNT.1));
    fs::create_dir_all(swarm.dir().join("logins")).unwrap();
    let logins = format!(r#"{{"auths": {{"{PRIVATE_ADDR}": {{"auth": "{pair}"}}}}}}"#);
    fs::write(swarm.dir().join("logins/config.json"), logins).unwrap();
    let output = deploy(&["--with-registry-auth", "--timeout", "60s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    swarm.running(1, "p_web", 2);
    let stored = swarm.hosts[1].ok(&["service", "inspect", "p_web"]);
    assert!(stored.contains("team/whoami:1@sha256:"), "{stored}");
    for host in &swarm.hosts {
        let log = fs::read_to_string(host.log_path()).unwrap();
        assert!(!log.contains(ACCOUNT.1) && !log.contains(&pair), "the password is in the log of {}", host.name());
    }
    assert!(!stored.contains(&pair) && !stored.contains("secret"), "{stored}");
    registry.push("whoami", "team/whoami:2");
    let other = registry.name("team/whoami:2");
    let create = ["service", "create", "--with-registry-auth", "--no-resolve-image", "--name", "d", &other];
    let mut command = docker_command::command(&swarm.hosts[1], "docker");
    let created = command.env("DOCKER_CONFIG", swarm.dir().join("logins")).args(create).output().unwrap();
    assert!(created.status.success(), "{created:?}");
    swarm.running(0, "d", 1);
    the_store_is_looked_after_by_hand(&swarm, &image);
}

/// On a node whose tasks use `image`; the login is in the swarm's folder.
fn the_store_is_looked_after_by_hand(swarm: &Swarm, image: &str) {
    let host = &swarm.hosts[0];
    let names = || host.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    let pull = |logins: &str| {
        let mut command = host.client();
        command.env("DOCKER_CONFIG", swarm.dir().join(logins)).args(["image", "pull", image]).output().unwrap()
    };
    let refused = pull("nowhere");
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("denies access"),
        "{refused:?}"
    );
    let pulled = pull("logins");
    let told = String::from_utf8_lossy(&pulled.stdout);
    assert!(pulled.status.success() && told.contains("Digest: sha256:") && told.contains("Status: "), "{told}");
    assert!(names().contains(image), "{}", names());

    host.ok(&["image", "tag", image, "mine:1"]);
    assert!(names().contains("mine:1"), "{}", names());
    let id = host.ok(&["image", "ls", "--quiet", "--no-trunc", "mine"]);
    assert_eq!(host.ok(&["image", "inspect", "--format", "{{.Id}}", "mine:1"]), id);
    let removed = host.ok(&["image", "rm", "mine:1"]);
    assert_eq!(removed, "Untagged: mine:1\n");
    let pruned = host.ok(&["image", "prune", "--all", "--force"]);
    assert!(pruned.contains("Total reclaimed space: ") && !pruned.contains(id.trim()), "a task uses it: {pruned}");

    let told = host.ok(&["events", "--since", "10m", "--until", "0s", "--filter", "type=image"]);
    assert!(told.contains("image pull ") && told.contains("image untag "), "{told}");
    assert!(host.refused(&["image", "prune"]).contains("--force"));
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn a_tag_that_moved_is_followed_by_the_next_deploy_and_kept_without_its_registry() {
    let swarm = Swarm::of(2);
    let registry = Registry::beside(&swarm);
    registry.push("whoami", "team/app:latest");
    let image = registry.name("team/app:latest");
    let file =
        swarm.stack_file("t", &format!("services: {{ web: {{ image: '{image}', deploy: {{ mode: global }} }} }}"));
    let deploy = || swarm.hosts[0].ok(&["stack", "deploy", "-c", &file, "t"]);
    let stored = || {
        let service = &swarm.hosts[1].get("/services").unwrap()[0];
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().to_owned()
    };
    deploy();
    let first = stored();
    assert!(first.starts_with(&format!("{image}@sha256:")), "{first}");
    assert!(deploy().contains("Unchanged service t_web"));

    registry.push("nginx", "team/app:latest");
    assert!(deploy().contains("Updating service t_web"));
    assert_ne!(stored(), first);
    swarm.running(1, "t_web", 2);

    let second = stored();
    drop(registry);
    assert!(deploy().contains("Unchanged service t_web"), "what a tag meant is kept where no registry answers");
    assert_eq!(stored(), second);
}

#[test]
#[ignore = "needs root, containerd and network namespaces"]
fn images_load_from_a_docker_archive_and_from_an_oci_layout_and_need_no_registry() {
    let swarm = Swarm::of(1);
    let host = &swarm.hosts[0];
    let layout = images::archive("busybox");
    let saved = swarm.dir().join("saved.tar");
    let to = format!("docker-archive:{}:team/saved:2", saved.display());
    run("skopeo", &["copy", "--quiet", "--insecure-policy", &format!("oci-archive:{}", layout.display()), &to]);
    assert!(host.ok(&["image", "load", "-i", layout.to_str().unwrap()]).contains("Loaded image: flok/busybox:latest"));
    assert!(host.ok(&["image", "load", "-i", saved.to_str().unwrap()]).contains("Loaded image: team/saved:2"));
    for (name, image) in [("a", "flok/busybox"), ("b", "team/saved:2")] {
        let output = host.flok(&["service", "create", "--name", name, image, "sleep", "1000"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("Warning"), "{said}");
    }

    let garbage = swarm.dir().join("garbage.tar");
    fs::write(&garbage, vec![7; 4096]).unwrap();
    let refused = host.refused(&["image", "load", "-i", garbage.to_str().unwrap()]);
    assert!(refused.contains("archive") || refused.contains("tar"), "{refused}");
    let cut = swarm.dir().join("cut.tar");
    let whole = fs::read(&layout).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let refused = host.refused(&["image", "load", "-i", cut.to_str().unwrap()]);
    assert!(refused.contains("cut short"), "{refused}");
    assert!(host.refused(&["image", "load", "-i", "/nowhere.tar"]).contains("/nowhere.tar"));
}
