//! Services that wait for others, by a stack file, by flags and by Docker's labels.

use std::fs;

use super::docker::ok;
use super::lab::eventually;
use super::swarm::{PATIENCE, Swarm};

const BASE: &str = "\
services:
  sleeper:
    image: flok/busybox:latest
    command: [sleep, '100000']
    stop_grace_period: 100ms
    deploy: { update_config: { monitor: 300ms } }
";

/// A database that is healthy while a file is there, a job behind it, and what waits for both.
fn stack(state: &str, age: &str) -> String {
    format!(
        "\
services:
  web:
    extends: {{ file: base.yml, service: sleeper }}
    environment: {{ AGE: '{age}' }}
    depends_on:
      migrate: {{ condition: service_completed_successfully }}
      db: {{ condition: service_healthy }}
      gone: {{ required: false }}
  migrate:
    image: flok/busybox:latest
    command: ['sh', '-c', 'date >> /state/migrated']
    volumes: ['{state}:/state']
    environment: {{ AGE: '{age}' }}
    depends_on: {{ db: {{ condition: service_healthy }} }}
    deploy: {{ mode: replicated-job, restart_policy: {{ condition: on-failure }} }}
  db:
    extends: {{ file: base.yml, service: sleeper }}
    environment: {{ AGE: '{age}' }}
    volumes: ['{state}:/state']
    healthcheck: {{ test: 'test -f /state/ok', interval: 200ms, start_period: 5m, start_interval: 200ms }}
  gone: {{ image: flok/busybox:latest, profiles: [never] }}
"
    )
}

#[test]
#[ignore = "needs root, containerd, network namespaces and the docker command"]
fn services_start_and_are_updated_in_the_order_of_what_they_depend_on() {
    let swarm = Swarm::of(1);
    swarm.load("busybox");
    let host = &swarm.hosts[0];
    let state = host.dir.join("state");
    fs::create_dir_all(&state).unwrap();
    let healthy = |is: bool| match is {
        true => fs::write(state.join("ok"), []).unwrap(),
        false => fs::remove_file(state.join("ok")).unwrap(),
    };
    let migrated = || fs::read_to_string(state.join("migrated")).unwrap_or_default().lines().count();

    swarm.stack_file("base", BASE);
    let first = stack(state.to_str().unwrap(), "1");
    let file = swarm.stack_file("s", &first);
    let planned = host.ok(&["stack", "plan", "-c", &file, "s"]);
    for part in ["first waits for s_migrate to complete", "first waits for s_db to be healthy", "starts s_web.1 on n1"]
    {
        assert!(planned.contains(part), "{part} in {planned}");
    }
    swarm.deploy(0, "s", &first);
    swarm.task_that(0, "s_db", "is checked", |task| task.state == "starting" && !task.container.is_empty());
    let web = swarm.task_that(0, "s_web", "waits", |task| task.error.contains("waits for"));
    assert_eq!((web.state.as_str(), web.node.as_str()), ("pending", ""));
    assert_eq!(web.error, "waits for s_migrate to complete; waits for s_db to be healthy");
    let told = host.ok(&["service", "explain", "s_migrate"]);
    assert!(told.contains("waits for s_db to be healthy"), "{told}");
    healthy(true);
    let old = swarm.running(0, "s_web", 1);
    assert_eq!(migrated(), 1);

    // Of the new deployment the database is not healthy: what depends on it goes on as it is.
    healthy(false);
    swarm.deploy(0, "s", &stack(state.to_str().unwrap(), "2"));
    eventually("the update to wait", PATIENCE, || {
        let service = host.get("/services/s_web")?;
        let status = &service["UpdateStatus"];
        let waits = status["Message"] == "update waits for s_migrate to complete; waits for s_db to be healthy";
        if waits && status["State"] == "updating" { Ok(()) } else { Err(service["UpdateStatus"].to_string()) }
    });
    swarm.task_that(0, "s_db", "is new", |task| task.state == "starting" && !task.container.is_empty());
    assert_eq!((swarm.running(0, "s_web", 1), migrated()), (old.clone(), 1));
    healthy(true);
    eventually("the new task", PATIENCE, || {
        let now = swarm.running(0, "s_web", 1);
        if now != old { Ok(()) } else { Err("the old one runs".to_owned()) }
    });
    assert_eq!(migrated(), 2);

    // The same in flags and labels; what becomes of the database later holds nobody up.
    let refused = host.refused(&["service", "create", "--depends-on", "nobody", "flok/busybox", "sleep", "1"]);
    assert!(refused.contains("--depends-on nobody") && refused.contains("not found"), "{refused}");
    let refused = host.refused(&["service", "update", "--depends-on", "s_web", "s_db"]);
    assert!(refused.contains("in a ring would never start"), "{refused}");
    let create = ["service", "create", "--detach", "--name", "late", "--label", "flok.depends-on=s_db:healthy,later"];
    ok(host, &[create.as_slice(), &["flok/busybox:latest", "sleep", "100000"]].concat());
    let late = swarm.task_that(0, "late", "waits", |task| task.error.contains("waits for"));
    assert_eq!(late.error, "waits for later to have started: there is no such service");
    let create = ["service", "create", "--name", "later", "--depends-on", "s_db:healthy"];
    host.ok(&[create.as_slice(), &["flok/busybox", "sleep", "100000"]].concat());
    swarm.running(0, "late", 1);
    host.ok(&["service", "rm", "later"]);
    host.ok(&["service", "scale", "late=2"]);
}
