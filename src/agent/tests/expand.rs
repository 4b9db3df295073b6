//! Templates and files of a task.

use super::*;

const SECRET: SecretId = SecretId(1);
const CONFIG: ConfigId = ConfigId(2);

fn node() -> NodeNames {
    let platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
    NodeNames { id: NodeId(7), hostname: "host-1".into(), platform }
}

fn of_key() -> DependencyId {
    DependencyId::Data(DataId::Secret(SECRET), DataVersion(2))
}

fn of_site() -> DependencyId {
    DependencyId::Data(DataId::Config(CONFIG), DataVersion(1))
}

fn dependencies(secret: &str, config: &str) -> BTreeMap<DependencyId, Dependency> {
    let data = |id, data: &str, is_template| Dependency {
        id,
        version: Version(1),
        data: SecretBytes(data.as_bytes().to_vec()),
        is_template,
    };
    // Another task of the node has the secret as it was before.
    let earlier = DependencyId::Data(DataId::Secret(SECRET), DataVersion(1));
    let all = [data(earlier, "earlier", false), data(of_key(), secret, false), data(of_site(), config, true)];
    all.into_iter().map(|dependency| (dependency.id, dependency)).collect()
}

fn target(name: &str) -> FileTarget {
    FileTarget { name: name.into(), uid: "5".into(), gid: "6".into(), mode: 0o440 }
}

/// A task with a secret and a templated config.
fn with_files() -> Assignment {
    let mut assignment = assignment();
    let container = &mut assignment.spec.container;
    container.env = vec!["NAME={{.Service.Name}}.{{.Task.Slot}}".into(), "ON={{.Node.Hostname}}".into()];
    container.hostname = Some("{{.Service.Name}}-{{.Node.ID}}".into());
    container.secrets =
        vec![SecretReference { id: SECRET, name: "key".into(), file: target("key"), data_version: DataVersion(2) }];
    container.configs = vec![ConfigReference {
        id: CONFIG,
        name: "site".into(),
        file: target("/etc/site.conf"),
        data_version: DataVersion(1),
    }];
    assignment
}

#[test]
fn what_a_task_holds_of_its_node_is_told_in_its_environment() {
    let named = |value: &str| GenericResource::Named { kind: "nvidia.com/gpu".into(), value: value.into() };
    let mut given = assignment();
    given.resources = vec![named("0"), named("2"), GenericResource::Discrete { kind: "ssd".into(), value: 3 }];
    let node = NodeNames {
        id: NodeId(1),
        hostname: "n1".into(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
    };
    let container = Expander::new(&given, &node, &Default::default()).container().unwrap();
    assert_eq!(container.env, ["DOCKER_RESOURCE_NVIDIA_COM_GPU=0,2", "DOCKER_RESOURCE_SSD=3"]);
}

#[test]
fn hostname_environment_and_mounts_are_filled_in() {
    let (assignment, node, none) = (with_files(), node(), BTreeMap::new());
    let container = Expander::new(&assignment, &node, &none).container().unwrap();
    assert_eq!(container.env, ["NAME=web.1", "ON=host-1"]);
    assert_eq!(container.hostname, Some(format!("web-{}", NodeId(7))));
}

#[test]
fn files_have_their_places_owners_and_filled_in_data() {
    let (assignment, node) = (with_files(), node());
    let dependencies = dependencies("hidden", "{{env `NAME`}} {{.Node.Hostname}} {{secret `key`}}");
    let expander = Expander::new(&assignment, &node, &dependencies);
    let files = expander.files(&expander.container().unwrap()).unwrap();
    assert_eq!((files[0].target.as_str(), files[0].data.0.as_slice()), ("/run/secrets/key", b"hidden".as_slice()));
    assert_eq!(files[1].target, "/etc/site.conf");
    assert_eq!(String::from_utf8_lossy(&files[1].data.0), "web.1 host-1 hidden");
    assert_eq!((files[1].uid, files[1].gid, files[1].mode), (5, 6, 0o440));
}

#[test]
fn what_cannot_be_filled_in_is_named_and_no_data_is_told() {
    let (assignment, node) = (with_files(), node());
    let refused = |dependencies: &BTreeMap<DependencyId, Dependency>| {
        let expander = Expander::new(&assignment, &node, dependencies);
        expander.files(&expander.container().unwrap()).unwrap_err()
    };
    assert_eq!(
        refused(&dependencies("hidden", "{{secret `other`}}")),
        "config site: secret target other not found in the service"
    );
    assert_eq!(refused(&BTreeMap::new()), "secret key: its data has not come to this node");
    let mut odd = dependencies("hidden", "{{secret `key`}}");
    odd.get_mut(&of_key()).unwrap().data = SecretBytes(vec![0xff, 0xfe]);
    assert_eq!(refused(&odd), "config site: secret key is not text in UTF-8");
}
