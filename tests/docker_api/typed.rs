//! A Rust client with models of its own (bollard, over its own connection): what it reads fits its types, what it writes is
//! what comes about.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::*;
use bollard::query_parameters::*;
use bollard::{ClientVersion, Docker};
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;

use super::swarm::{PATIENCE, Swarm};
use super::whole::IMAGE;

type Outcome<T> = Result<T, bollard::errors::Error>;

/// Waits for a state; `look` gives what is wanted of it, or `None`.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Outcome<Option<T>>) -> T {
    let start = Instant::now();
    loop {
        match look().await.unwrap() {
            Some(found) => return found,
            None => assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn refused<T: std::fmt::Debug>(outcome: Outcome<T>, status: u16, words: &str) {
    match outcome.unwrap_err() {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            assert!(status_code == status && message.contains(words), "{status_code} {message}");
        }
        other => panic!("{other}"),
    }
}

fn filters(key: &str, value: &str) -> Option<HashMap<String, Vec<String>>> {
    Some(HashMap::from([(key.to_owned(), vec![value.to_owned()])]))
}

/// All that a stream prints: stdout, stderr.
async fn printed(mut stream: impl Stream<Item = Outcome<LogOutput>> + Unpin) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(piece) = stream.next().await {
        match piece.unwrap() {
            LogOutput::StdErr { message } => err += &String::from_utf8_lossy(&message),
            other => out += &String::from_utf8_lossy(&other.into_bytes()),
        }
    }
    (out, err)
}

fn spec(name: &str, command: &[&str], replicas: i64) -> ServiceSpec {
    ServiceSpec {
        name: Some(name.to_owned()),
        labels: Some([("team".to_owned(), "a".to_owned())].into()),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas: Some(replicas) }),
            ..Default::default()
        }),
        task_template: Some(TaskSpec {
            container_spec: Some(TaskSpecContainerSpec {
                image: Some(IMAGE.to_owned()),
                command: Some(command.iter().map(|&word| word.to_owned()).collect()),
                env: Some(vec!["A=1".to_owned()]),
                stop_grace_period: Some(0),
                ..Default::default()
            }),
            restart_policy: Some(TaskSpecRestartPolicy { delay: Some(0), ..Default::default() }),
            // Where it is asked for: a node lists its own containers.
            placement: Some(TaskSpecPlacement {
                constraints: Some(vec!["node.hostname==n1".to_owned()]),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The service's tasks, once so many run and no others are to.
async fn running(docker: &Docker, service: &str, count: usize) -> Vec<Task> {
    until(&format!("{count} tasks of {service}"), async || {
        let wanted: HashMap<String, Vec<String>> = [("service", service), ("desired-state", "running")]
            .map(|(key, value)| (key.into(), vec![value.into()]))
            .into();
        let tasks = docker.list_tasks(Some(ListTasksOptions { filters: Some(wanted) })).await?;
        let run = |task: &Task| task.status.as_ref().and_then(|status| status.state) == Some(TaskState::RUNNING);
        Ok((tasks.len() == count && tasks.iter().all(run)).then_some(tasks))
    })
    .await
}

fn container(task: &Task) -> String {
    let status = task.status.as_ref().and_then(|status| status.container_status.as_ref());
    status.and_then(|status| status.container_id.clone()).expect("it runs")
}

async fn versions(socket: &str) -> Docker {
    let newest = ClientVersion { major_version: 1, minor_version: 99 };
    let docker = Docker::connect_with_unix(socket, 30, &newest).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    assert_eq!(docker.client_version().to_string(), "1.50");
    assert_eq!(docker.ping().await.unwrap(), "OK");
    let version = docker.version().await.unwrap();
    assert_eq!((version.api_version.as_deref(), version.os.as_deref()), (Some("1.50"), Some("linux")));
    let swarm = docker.info().await.unwrap().swarm.unwrap();
    assert_eq!((swarm.local_node_state, swarm.control_available), (Some(LocalNodeState::ACTIVE), Some(true)));
    docker
}

async fn nodes(docker: &Docker) {
    let all = docker.list_nodes(Some(ListNodesOptions { filters: filters("role", "manager") })).await.unwrap();
    let standing = |node: &Node| node.manager_status.clone().unwrap_or_default();
    assert!(all.iter().all(|node| standing(node).reachability == Some(Reachability::REACHABLE)), "{all:?}");
    assert_eq!(all.iter().filter(|node| standing(node).leader == Some(true)).count(), 1, "{all:?}");
    let hostname = |node: &&Node| node.description.as_ref().and_then(|it| it.hostname.as_deref()) == Some("n1");
    let node = all.iter().find(hostname).unwrap();
    let id = node.id.as_ref().unwrap();
    let version = node.version.as_ref().unwrap().index.unwrap();
    let mut wanted = node.spec.clone().unwrap();
    wanted.labels = Some([("zone".to_owned(), "typed".to_owned())].into());
    let options = UpdateNodeOptions { version: version.try_into().unwrap() };
    docker.update_node(id, wanted.clone(), options.clone()).await.unwrap();
    assert_eq!(docker.inspect_node("n1").await.unwrap().spec.unwrap().labels, wanted.labels);
    refused(docker.update_node(id, wanted, options).await, 500, "update out of sequence");
    refused(docker.inspect_node("nobody").await, 404, "nobody");
}

async fn data(docker: &Docker) {
    let config = ConfigSpec { name: Some("typed".into()), data: Some("eA==".into()), ..Default::default() };
    let id = docker.create_config(config.clone()).await.unwrap().id;
    refused(docker.create_config(config).await, 409, "already exists");
    let found = docker.inspect_config("typed").await.unwrap();
    assert_eq!((found.id.as_ref(), found.spec.unwrap().data.as_deref()), (Some(&id), Some("eA==")));
    docker.delete_config(&id).await.unwrap();
    let secret = SecretSpec { name: Some("typed".into()), data: Some("eA==".into()), ..Default::default() };
    let id = docker.create_secret(secret).await.unwrap().id;
    let all = docker.list_secrets(Some(ListSecretsOptions { filters: filters("name", "typ") })).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].spec.as_ref().unwrap().data, None);
    docker.delete_secret(&id).await.unwrap();
    refused(docker.inspect_secret(&id).await, 404, &id);

    let network = NetworkCreateRequest { name: "typed".into(), driver: Some("overlay".into()), ..Default::default() };
    let made = docker.create_network(network).await.unwrap();
    let found = docker.inspect_network("typed", None).await.unwrap();
    assert_eq!((found.id.as_ref(), found.scope.as_deref()), (Some(&made.id), Some("swarm")));
    docker.remove_network("typed").await.unwrap();

    let volume = VolumeCreateRequest { name: Some("typed".into()), ..Default::default() };
    assert_eq!(docker.create_volume(volume).await.unwrap().name, "typed");
    let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap();
    assert!(volumes.iter().any(|volume| volume.name == "typed"));
    docker.remove_volume("typed", None::<RemoveVolumeOptions>).await.unwrap();

    let image = docker.inspect_image(IMAGE).await.unwrap();
    assert_eq!(image.os.as_deref(), Some("linux"));
    let images = docker.list_images(None::<ListImagesOptions>).await.unwrap();
    assert!(
        images.iter().any(|found| Some(&found.id) == image.id.as_ref() && found.repo_tags.contains(&IMAGE.to_owned()))
    );
    assert!(docker.df(None::<DataUsageOptions>).await.is_ok());
}

async fn services(docker: &Docker) {
    let script = ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"];
    let id = docker.create_service(spec("typed", &script, 2), None).await.unwrap().id.unwrap();
    refused(docker.create_service(spec("typed", &script, 1), None).await, 409, "typed");
    running(docker, "typed", 2).await;
    let asked = ListServicesOptions { filters: filters("label", "team=a"), status: Some(true) };
    let all = docker.list_services(Some(asked)).await.unwrap();
    let status = all[0].service_status.as_ref().unwrap();
    assert_eq!((all.len(), status.running_tasks, status.desired_tasks), (1, Some(2), Some(2)));

    // What was read is written back with one thing changed, and nothing else is.
    let plain = docker.inspect_service("typed", None::<InspectServiceOptions>).await.unwrap();
    let defaults = InspectServiceOptions { insert_defaults: true };
    let filled = docker.inspect_service("typed", Some(defaults)).await.unwrap();
    assert!(filled.spec.as_ref().unwrap().rollback_config.is_some());
    assert_eq!(plain.spec.as_ref().unwrap().rollback_config, None);
    let mut wanted = plain.spec.clone().unwrap();
    let template = wanted.task_template.as_mut().unwrap();
    template.container_spec.as_mut().unwrap().env = Some(vec!["A=2".to_owned()]);
    let version = plain.version.as_ref().unwrap().index.unwrap().try_into().unwrap();
    let options = UpdateServiceOptions { version, ..Default::default() };
    docker.update_service(&id, wanted.clone(), options.clone(), None).await.unwrap();
    refused(docker.update_service(&id, wanted.clone(), options, None).await, 500, "update out of sequence");
    let now = docker.inspect_service(&id, None::<InspectServiceOptions>).await.unwrap();
    assert_eq!(now.spec, Some(wanted));
    until("the update to be completed", async || {
        let now = docker.inspect_service(&id, None::<InspectServiceOptions>).await?;
        let state = now.update_status.and_then(|status| status.state);
        Ok((state == Some(ServiceUpdateStatusStateEnum::COMPLETED)).then_some(()))
    })
    .await;

    let tasks = running(docker, "typed", 2).await;
    let (task, inside) = (tasks[0].id.as_ref().unwrap(), container(&tasks[0]));
    assert_eq!(docker.inspect_task(task).await.unwrap().service_id, Some(id.clone()));
    let both = || LogsOptions { stdout: true, stderr: true, tail: "all".into(), ..Default::default() };
    let once = ("out\n".to_owned(), "err\n".to_owned());
    until("the task's lines", async || {
        Ok((printed(Box::pin(docker.task_logs(task, Some(both())))).await == once).then_some(()))
    })
    .await;
    assert_eq!(printed(Box::pin(docker.logs(&inside, Some(both())))).await, once);
    let (out, _) = printed(Box::pin(docker.service_logs("typed", Some(both())))).await;
    // Of the tasks before the update, too.
    assert!(out.lines().count() >= 2 && out.lines().all(|line| line == "out"), "{out}");
    commands(docker, &inside).await;
    docker.delete_service("typed").await.unwrap();
    refused(docker.inspect_service("typed", None::<InspectServiceOptions>).await, 404, "typed");
}

async fn commands(docker: &Docker, container: &str) {
    let found = docker.inspect_container(container, None::<InspectContainerOptions>).await.unwrap();
    assert_eq!(found.state.unwrap().status, Some(ContainerStateStatusEnum::RUNNING));
    let listed =
        docker.list_containers(Some(ListContainersOptions { filters: filters("id", container), ..Default::default() }));
    assert_eq!(listed.await.unwrap()[0].state, Some(ContainerSummaryStateEnum::RUNNING));
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: Some(vec!["MORE=x"]),
        cmd: Some(vec!["sh", "-c", "cat; echo $MORE >&2; exit 5"]),
        ..Default::default()
    };
    let exec = docker.create_exec(container, options).await.unwrap().id;
    let started = docker.start_exec(&exec, None::<StartExecOptions>).await.unwrap();
    let StartExecResults::Attached { output, mut input } = started else { panic!("it is attached") };
    input.write_all(b"typed in").await.unwrap();
    input.shutdown().await.unwrap();
    assert_eq!(printed(output).await, ("typed in".to_owned(), "x\n".to_owned()));
    let ended = docker.inspect_exec(&exec).await.unwrap();
    assert_eq!(
        (ended.running, ended.exit_code, ended.container_id.as_deref()),
        (Some(false), Some(5), Some(container))
    );

    let options = CreateExecOptions {
        tty: Some(true),
        attach_stdout: Some(true),
        cmd: Some(vec!["sh"]),
        attach_stdin: Some(true),
        ..Default::default()
    };
    let exec = docker.create_exec(container, options).await.unwrap().id;
    let started = docker.start_exec(&exec, Some(StartExecOptions { tty: true, ..Default::default() })).await.unwrap();
    let StartExecResults::Attached { output, mut input } = started else { panic!("it is attached") };
    docker.resize_exec(&exec, ResizeExecOptions { height: 33, width: 77 }).await.unwrap();
    input.write_all(b"stty size; exit\n").await.unwrap();
    let (out, _) = printed(output).await;
    assert!(out.contains("33 77"), "{out}");
    let stats =
        docker.stats(container, Some(StatsOptions { stream: false, one_shot: true })).next().await.unwrap().unwrap();
    assert!(stats.memory_stats.unwrap().usage.unwrap() > 0);
    let top = docker.top_processes(container, None::<TopOptions>).await.unwrap();
    assert_eq!(top.titles.unwrap()[0], "UID");
}

async fn events(docker: &Docker) {
    let asked = EventsOptions { filters: filters("type", "service"), ..Default::default() };
    let mut listening = Box::pin(docker.events(Some(asked)));
    let (heard, mut hears) = tokio::sync::oneshot::channel::<()>();
    let ticking = tokio::spawn({
        let docker = docker.clone();
        async move {
            for count in 0.. {
                let name = format!("tick{count}");
                docker.create_service(spec(&name, &["true"], 0), None).await.unwrap();
                let told = tokio::time::timeout(Duration::from_millis(50), &mut hears).await.is_ok();
                docker.delete_service(&name).await.unwrap();
                if told {
                    return;
                }
            }
        }
    });
    let event = listening.next().await.unwrap().unwrap();
    heard.send(()).unwrap();
    ticking.await.unwrap();
    assert_eq!((event.typ, event.scope), (Some(EventMessageTypeEnum::SERVICE), Some(EventMessageScopeEnum::SWARM)));
    assert!(event.actor.unwrap().attributes.unwrap()["name"].starts_with("tick"));
    // No bound is no bound.
    let asked = EventsOptions { since: Some("1".into()), until: Some("0".into()), filters: filters("event", "remove") };
    let mut again = Box::pin(docker.events(Some(asked)));
    assert_eq!(again.next().await.unwrap().unwrap().action.as_deref(), Some("remove"));
}

/// On the first host of a swarm, which is its only one.
pub fn fits_its_models(swarm: &Swarm) {
    let socket = swarm.hosts[0].socket().display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async {
            let docker = versions(&socket).await;
            nodes(&docker).await;
            data(&docker).await;
            services(&docker).await;
            events(&docker).await;
            Ok::<_, io::Error>(())
        })
        .unwrap();
}
