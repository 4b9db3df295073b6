//! Images from registries and archives.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use flok::runtime::{Images, RegistryConfig, Saved};
use flok::spec::*;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::host::*;

/// The test image, pushed in one of its forms.
fn push(host: &Host, registry: &Registry, name: &str, options: &[&str]) {
    let archive = host.path().join("push.tar");
    docker_archive(&archive, "flok-test/push:latest");
    let from = format!("docker-archive:{}", archive.display());
    let to = format!("docker://{}/{name}", registry.host);
    let tool = [&["--insecure-policy", "copy", "--dest-tls-verify=false"], options, &[&from, &to]].concat();
    run("skopeo", &tool);
}

fn pulled(registry: &Registry, task: u128, name: &str) -> Assignment {
    let mut given = assignment(task, "busybox cat /data/kept; busybox test ! -e /data/doomed");
    given.spec.container.image = format!("{}/{name}", registry.host);
    given
}

#[test]
#[ignore = "needs root, containerd, docker-registry and skopeo"]
fn images_of_every_form_are_pulled_and_run() {
    on_a_host(|mut host| async move {
        let registry = Registry::start(host.path(), "").await;
        push(&host, &registry, "gzip:1", &[]);
        push(&host, &registry, "oci:1", &["--format=oci"]);
        push(&host, &registry, "zstd:1", &["--format=oci", "--dest-compress-format=zstd"]);
        push_index(&registry, "oci:1", "index:1", "application/vnd.oci.image.index.v1+json");
        push_index(&registry, "gzip:1", "list:1", "application/vnd.docker.distribution.manifest.list.v2+json");
        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        for (task, name) in [(1, "gzip:1"), (2, "oci:1"), (3, "zstd:1"), (4, "index:1"), (5, "list:1")] {
            host.want(&worker, pulled(&registry, task, name));
        }
        for task in 1..=5 {
            reaches(&worker, task, TaskState::Complete).await;
            assert_eq!(super::logs::text_of(&runtime, task).await, "from the image\n");
        }
        let images = runtime.images().list().await.unwrap();
        assert!(images.iter().any(|image| image.name.starts_with(&format!("{}/gzip@sha256:", registry.host))));

        let architecture = flok::runtime::host::platform().normalized().architecture;
        for (name, wanted) in [("gzip:1", vec![architecture.as_str()]), ("index:1", vec!["s390x", &architecture])] {
            let told = runtime.images().describe(&format!("{}/{name}", registry.host), None).await.unwrap();
            let told: Vec<&str> = told.platforms.iter().map(|platform| platform.architecture.as_str()).collect();
            assert_eq!(told, wanted, "{name}");
        }

        // By digest, and with the registry gone, from what is here.
        let by_digest = images.iter().find(|image| image.name.contains("zstd@")).unwrap().digest.clone();
        drop(registry);
        let mut pinned = assignment(6, "exit 0");
        let host_name = images[0].name.split('/').next().unwrap().to_owned();
        for name in ["gzip:1", "index:1", "list:1"] {
            is_saved_and_loaded_as_itself(runtime.images(), &format!("{host_name}/{name}")).await;
        }
        pinned.spec.container.image = format!("{host_name}/zstd:ignored@{by_digest}");
        host.want(&worker, pinned);
        reaches(&worker, 6, TaskState::Complete).await;
        worker.shutdown().await;
    });
}

async fn is_saved_and_loaded_as_itself(images: &Images, name: &str) {
    let digest = async || {
        let listed = images.list().await.unwrap();
        listed.into_iter().find(|image| image.name == name).map(|image| image.digest)
    };
    let before = digest().await;
    let saved = Saved { name: name.to_owned(), tags: vec![name.to_owned()] };
    let mut pieces = images.save(vec![saved]).await.unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = pieces.recv().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    images.remove(name, true).await.unwrap();
    assert_eq!(digest().await, None);
    assert_eq!(images.load(std::io::Cursor::new(archive), None).await.unwrap(), [name]);
    assert!(before.is_some() && digest().await == before, "{name} was {before:?}");
}

/// Puts an index before a pushed manifest: this platform's entry among others.
fn push_index(registry: &Registry, from: &str, to: &str, media_type: &str) {
    let (repository, _) = from.split_once(':').unwrap();
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/{from}", registry.host)]);
    let digest = flok::runtime::images::manifest::digest_of(raw.as_bytes());
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let kind = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned();
    let architecture = flok::runtime::host::platform().normalized().architecture;
    let missing = format!("sha256:{}", "0".repeat(64));
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [
            {"mediaType": kind, "size": raw.len(), "digest": missing, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": kind, "size": raw.len(), "digest": digest, "platform": {"os": "linux", "architecture": architecture}},
        ],
    });
    // Straight into the registry's files: it refuses an index whose other manifests it does not have.
    let root = registry.data.join("docker/registry/v2");
    let (to_repository, to_tag) = to.split_once(':').unwrap();
    let bytes = index.to_string();
    let index_digest = flok::runtime::images::manifest::digest_of(bytes.as_bytes());
    let hex = &index_digest["sha256:".len()..];
    let blob = root.join("blobs/sha256").join(&hex[..2]).join(hex);
    fs::create_dir_all(&blob).unwrap();
    fs::write(blob.join("data"), bytes).unwrap();
    let repositories = root.join("repositories");
    run(
        "cp",
        &[
            "-r",
            &repositories.join(repository).display().to_string(),
            &repositories.join(to_repository).display().to_string(),
        ],
    );
    let manifests = repositories.join(to_repository).join("_manifests");
    for link in [
        format!("revisions/sha256/{hex}"),
        format!("tags/{to_tag}/current"),
        format!("tags/{to_tag}/index/sha256/{hex}"),
    ] {
        fs::create_dir_all(manifests.join(&link)).unwrap();
        fs::write(manifests.join(&link).join("link"), &index_digest).unwrap();
    }
}

#[test]
#[ignore = "needs root, containerd, docker-registry and skopeo"]
fn a_registry_that_wants_credentials_gets_them_and_an_image_that_is_not_there_is_said() {
    on_a_host(|mut host| async move {
        // htpasswd's bcrypt of "secret".
        let registry = Registry::start(host.path(), ACCOUNT).await;
        push(&host, &registry, "private:1", &["--dest-creds=user:secret"]);
        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        host.want(&worker, pulled(&registry, 1, "private:1"));
        let rejected = reaches(&worker, 1, TaskState::Rejected).await;
        assert!(rejected.message.contains("denies access"), "{}", rejected.message);

        let auth = URL_SAFE.encode(r#"{"username":"user","password":"secret"}"#);
        let id = DependencyId::Credentials(ServiceId(1));
        let credentials =
            Dependency { id, version: Version(1), data: SecretBytes(auth.into_bytes()), is_template: false };
        host.wanted().dependencies.insert(id, credentials);
        host.want(&worker, pulled(&registry, 2, "private:1"));
        reaches(&worker, 2, TaskState::Complete).await;
        host.want(&worker, pulled(&registry, 3, "private:none"));
        let rejected = reaches(&worker, 3, TaskState::Rejected).await;
        assert!(
            rejected.message.contains("private:none") && rejected.message.contains("does not have it"),
            "{}",
            rejected.message
        );
        worker.shutdown().await;
    });
}

/// `user`, with the password `secret`.
const ACCOUNT: &str = "user:$2b$05$ZA5mzINNeRigXa0R3Et0k.Pw36eDu.UcPOaLW8l/c0QBdgNpRANgW\n";

#[test]
#[ignore = "needs root, containerd and skopeo"]
fn an_oci_layout_is_loaded_tagged_and_removed() {
    on_a_host(|host| async move {
        let archive = host.path().join("save.tar");
        docker_archive(&archive, "flok-test/x:latest");
        let layout = host.path().join("layout.tar");
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                &format!("docker-archive:{}", archive.display()),
                &format!("oci-archive:{}:v1", layout.display()),
            ],
        );
        let runtime = host.runtime().await;
        let images = runtime.images();
        let refused = images.load(fs::File::open(&layout).unwrap(), None).await.unwrap_err();
        assert!(refused.to_string().contains("v1"), "{refused}");
        let names = images.load(fs::File::open(&layout).unwrap(), Some("lab/x")).await.unwrap();
        assert_eq!(names, ["docker.io/lab/x:v1"]);
        images.tag("lab/x:v1", "lab/y").await.unwrap();
        let listed: Vec<String> = images.list().await.unwrap().into_iter().map(|image| image.name).collect();
        assert!(listed.contains(&"docker.io/lab/y:latest".to_owned()), "{listed:?}");
        for name in listed {
            images.remove(&name, false).await.unwrap();
        }
        assert!(images.list().await.unwrap().is_empty());
        let garbage = images.load(&b"this is no archive at all, but it is long enough to be looked at"[..], None).await;
        assert!(garbage.is_err());
    });
}

#[test]
#[ignore = "needs root, containerd, docker-registry, skopeo and openssl"]
fn a_registry_of_a_private_ca_is_trusted_only_when_it_is_configured() {
    on_a_host(|mut host| async move {
        let registry = Registry::start_tls(host.path()).await;
        push(&host, &registry, "secure:1", &[]);
        let strict = RegistryConfig { plain_http: false, ca_pem: None };
        host.registries.by_host.insert(registry.host.clone(), strict);
        let runtime = host.runtime().await;
        let name = format!("{}/secure:1", registry.host);
        let refused = runtime.images().ensure(&name, None, |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
        drop(runtime);

        let trusted = RegistryConfig { plain_http: false, ca_pem: Some(fs::read(host.path().join("ca.pem")).unwrap()) };
        host.registries.by_host.insert(registry.host.clone(), trusted);
        let runtime = host.runtime().await;
        runtime.images().ensure(&name, None, |_| {}).await.unwrap();
    });
}

#[test]
#[ignore = "needs root, containerd, docker-registry and skopeo"]
fn one_pull_serves_all_who_wait_for_it() {
    on_a_host(|mut host| async move {
        let registry = Registry::start(host.path(), "").await;
        push(&host, &registry, "shared:1", &[]);
        let runtime = host.runtime().await;
        let worker = host.worker(&runtime).await;
        for task in 1..=6 {
            host.want(&worker, pulled(&registry, task, "shared:1"));
        }
        for task in 1..=6 {
            reaches(&worker, task, TaskState::Complete).await;
        }
        let blobs = registry.requests("GET /v2/shared/blobs/");
        let manifest: serde_json::Value = serde_json::from_str(&run(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/shared:1", registry.host)],
        ))
        .unwrap();
        let layers = manifest["layers"].as_array().unwrap().len();
        assert_eq!(blobs, layers + 1, "each layer and the configuration, once");
        worker.shutdown().await;
    });
}

#[test]
#[ignore = "needs root, containerd, docker-registry and skopeo"]
fn a_pull_that_fails_leaves_no_lease_and_nothing_half_loaded() {
    on_a_host(|host| async move {
        let registry = Registry::start(host.path(), "").await;
        push(&host, &registry, "broken:1", &[]);
        // A layer that is not what its digest says.
        let raw =
            run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/broken:1", registry.host)]);
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
        let hex = &layer["sha256:".len()..];
        let blob = registry.data.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&blob).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0xff;
        fs::write(&blob, &bytes).unwrap();

        let runtime = host.runtime().await;
        let name = format!("{}/broken:1", registry.host);
        let refused = runtime.images().ensure(&name, None, |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("broken:1"), "{refused}");
        assert_eq!(host.ctr(&["leases", "ls", "-q"]), "", "no lease is left");
        assert!(runtime.images().list().await.unwrap().is_empty());

        bytes[last] ^= 0xff;
        fs::write(&blob, &bytes).unwrap();
        runtime.images().ensure(&name, None, |_| {}).await.unwrap();
        assert_eq!(host.ctr(&["leases", "ls", "-q"]), "");
    });
}

#[test]
#[ignore = "needs root, containerd, docker-registry and skopeo"]
fn a_pull_that_is_cut_goes_on_where_it_was() {
    on_a_host(|host| async move {
        let registry = Registry::start(host.path(), "").await;
        push(&host, &registry, "cut:1", &[]);
        let proxy = CuttingProxy::start(&registry.host, 400_000).await;
        let runtime = host.runtime().await;
        let mut seen = Vec::new();
        let name = format!("{}/cut:1", proxy.host);
        runtime.images().ensure(&name, None, |progress| seen.push(progress)).await.unwrap();
        assert!(proxy.cuts.load(Ordering::Relaxed) >= 1, "nothing was cut");
        let told = seen.iter().any(|progress| progress.to_string().contains("; attempt 1 failed: "));
        assert!(told, "nobody was told why it takes longer: {seen:?}");
        let last = seen.iter().rev().find(|progress| progress.total_bytes > 0).unwrap();
        assert_eq!(last.done_bytes, last.total_bytes);
        assert!(seen.windows(2).all(|pair| pair[0].done_bytes <= pair[0].total_bytes.max(1)), "{seen:?}");
    });
}

/// Passes connections on, and cuts each after so many bytes of the answer.
struct CuttingProxy {
    host: String,
    cuts: Arc<AtomicUsize>,
}

impl CuttingProxy {
    async fn start(to: &str, bytes: u64) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let cuts = Arc::new(AtomicUsize::new(0));
        let (to, counted) = (to.to_owned(), Arc::clone(&cuts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, counted) = (to.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let server = TcpStream::connect(&to).await.unwrap();
                    let (server_in, mut server_out) = server.into_split();
                    let (mut client_in, mut client_out) = client.into_split();
                    let asking = tokio::spawn(async move { tokio::io::copy(&mut client_in, &mut server_out).await });
                    let passed = tokio::io::copy(&mut server_in.take(bytes), &mut client_out).await.unwrap_or(0);
                    if passed == bytes {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    asking.abort();
                });
            }
        });
        CuttingProxy { host, cuts }
    }
}
