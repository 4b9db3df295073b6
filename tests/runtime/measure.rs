//! What a start costs, beside bare containerd's create and start of the same specification in the same run. Run by hand on
//! a quiet machine with cgroup v1: `cargo test --release --test runtime -- --ignored --nocapture measure`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use containerd_client::services::v1::snapshots::PrepareSnapshotRequest;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, GetContainerRequest, GetImageRequest, StartRequest,
};
use containerd_client::tonic::Request;
use containerd_client::{Client, with_namespace};
use flok::runtime::{Runtime, container_id};
use flok::spec::*;
use futures::StreamExt;

use super::host::*;

const TASKS: u128 = 50;
const AT_ONCE: usize = 4;

/// CPU time of this process, of what it starts, and of flok's containers.
struct CpuMeter {
    own: PathBuf,
}

impl CpuMeter {
    fn new() -> CpuMeter {
        let own = PathBuf::from(format!("/sys/fs/cgroup/cpuacct/flok-measure-{}", std::process::id()));
        fs::create_dir(&own).expect("cgroup v1 with cpuacct");
        fs::write(own.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        CpuMeter { own }
    }

    fn read(&self) -> Duration {
        let usage = |dir: &str| {
            fs::read_to_string(format!("{dir}/cpuacct.usage")).map_or(0, |text| text.trim().parse().unwrap())
        };
        Duration::from_nanos(usage(&self.own.to_string_lossy()) + usage("/sys/fs/cgroup/cpuacct/flok"))
    }
}

impl Drop for CpuMeter {
    fn drop(&mut self) {
        let _ = fs::write("/sys/fs/cgroup/cpuacct/cgroup.procs", std::process::id().to_string());
        let _ = fs::remove_dir(&self.own);
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn clock() -> Instant {
    Instant::now()
}

#[test]
#[ignore = "a measurement: needs root, containerd and a quiet machine"]
fn measure_starts() {
    let meter = CpuMeter::new();
    on_a_host(|mut host| async move {
        let runtime = host.runtime().await;
        host.load_busybox(&runtime).await;
        let worker = host.worker(&runtime).await;
        let sleeper = |task| {
            let mut given = assignment(task, "exec busybox sleep 1000");
            given.spec.container.stop_signal = Some("SIGKILL".into());
            given
        };
        // The first start warms the page cache for both.
        host.want(&worker, sleeper(1));
        reaches(&worker, 1, TaskState::Running).await;

        let (start, cpu) = (clock(), meter.read());
        bare_starts(&host, &runtime).await;
        print("bare containerd", start, meter.read() - cpu);

        let (start, cpu) = (clock(), meter.read());
        for task in 2..2 + TASKS {
            host.wanted().assignments.insert(TaskId(task), sleeper(task));
        }
        worker.assign(host.wanted().clone());
        for task in 2..2 + TASKS {
            reaches(&worker, task, TaskState::Running).await;
        }
        print("flok", start, meter.read() - cpu);
        worker.shutdown().await;
    });
}

fn print(who: &str, start: Instant, cpu: Duration) {
    let each = cpu / u32::try_from(TASKS).unwrap();
    eprintln!("{who}: {TASKS} running after {:?}, {each:?} CPU each", start.elapsed());
}

/// Prepare, create, create, start: nothing else, four at once.
async fn bare_starts(host: &Host, runtime: &Runtime) {
    let client = Client::from_path(host.path().join("containerd/containerd.sock")).await.unwrap();
    let request = GetContainerRequest { id: container_id(TaskId(1)) };
    let model =
        client.containers().get(with_namespace!(request, "flok")).await.unwrap().into_inner().container.unwrap();
    let image = GetImageRequest { name: model.image.clone() };
    client.images().get(with_namespace!(image, "flok")).await.unwrap();
    let reference = flok::runtime::images::parse_reference(&model.image).unwrap();
    let parent = runtime.images().local(&reference).await.unwrap().unwrap().chain_id.clone();
    let starts = futures::stream::iter(0..TASKS).map(|number| bare_start(&client, &model, &parent, number));
    starts.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

async fn bare_start(client: &Client, model: &Container, parent: &str, number: u128) {
    let id = format!("bare-{number}");
    let request = PrepareSnapshotRequest {
        snapshotter: model.snapshotter.clone(),
        key: id.clone(),
        parent: parent.to_owned(),
        labels: HashMap::from([("containerd.io/gc.root".to_owned(), "test".to_owned())]),
    };
    let rootfs = client.snapshots().prepare(with_namespace!(request, "flok")).await.unwrap().into_inner().mounts;
    let mut container = Container { id: id.clone(), snapshot_key: id.clone(), ..model.clone() };
    let spec = container.spec.as_mut().unwrap();
    spec.value = String::from_utf8(spec.value.clone()).unwrap().replace(&model.id, &id).into_bytes();
    let request = CreateContainerRequest { container: Some(container) };
    client.containers().create(with_namespace!(request, "flok")).await.unwrap();
    let request = CreateTaskRequest { container_id: id.clone(), rootfs, ..Default::default() };
    client.tasks().create(with_namespace!(request, "flok")).await.unwrap();
    let request = StartRequest { container_id: id, ..Default::default() };
    client.tasks().start(with_namespace!(request, "flok")).await.unwrap();
}
