use super::*;
use crate::state::fixture::{Fixture, node};
use crate::state::{Command, UpdateState};

#[test]
fn changes_of_the_swarm_are_told_as_dockers() {
    let mut swarm = Fixture::nodes(1);
    let before = swarm.state.clone();
    swarm.service("web", 2, |_| {});
    let told: Vec<Event> =
        changes(&before, &swarm.state).iter().filter_map(|change| of_swarm(change, Timestamp::UNIX_EPOCH)).collect();
    let service = told.iter().find(|event| event.kind == "service").unwrap();
    assert_eq!((service.action.as_str(), service.scope), ("create", "swarm"));
    assert_eq!(service.attributes["name"], "web");
    assert_eq!(service.shown()["Actor"]["Attributes"]["name"], "web");
}

#[test]
fn what_comes_and_goes_between_two_looks_is_told_where_each_state_is() {
    let mut swarm = Fixture::nodes(1);
    let mut states = vec![Arc::new(swarm.state.clone())];
    let network = swarm.network("net", &[]);
    states.push(Arc::new(swarm.state.clone()));
    swarm.command(Command::RemoveNetwork { id: network });
    states.push(Arc::new(swarm.state.clone()));
    let told: Vec<String> = states
        .windows(2)
        .flat_map(|pair| changes(&pair[0], &pair[1]))
        .filter_map(|change| of_swarm(&change, Timestamp::UNIX_EPOCH))
        .map(|event| format!("{} {}", event.kind, event.action))
        .collect();
    assert_eq!(told, ["network create", "network remove"]);
}

#[test]
fn the_state_of_an_update_is_told_in_dockers_words() {
    let (since, started_at, message) = (Version(1), UnixMs(0), String::new());
    let status = |state| Some(UpdateStatus { state, since, started_at, completed_at: None, message: message.clone() });
    assert_eq!(updating(&status(UpdateState::RollbackStarted)), "rollback_started");
    assert_eq!(updating(&None), "");
}

#[test]
fn a_mount_of_a_part_of_a_volume_is_of_that_volume() {
    let volume = |name: &str| LocalVolume {
        name: name.into(),
        mountpoint: format!("/v/{name}/_data"),
        labels: Labels::new(),
        options: Labels::new(),
        created: UnixMs(0),
    };
    let volumes = [volume("a"), volume("ab")];
    let name = |source: &str| volume_of(source, &volumes).map(|volume| volume.name.as_str());
    assert_eq!(name("/v/ab/_data"), Some("ab"));
    assert_eq!(name("/v/a/_data/deep/down"), Some("a"));
    assert_eq!((name("/v/a/_database"), name("/v")), (None, None));
}

#[test]
fn a_change_of_leader_is_told_of_both() {
    let swarm = Fixture::nodes(2);
    let told = |before, leader| of_leader(&swarm.state, before, leader, Timestamp::UNIX_EPOCH);
    let (one, two) = (node(1), node(2));
    assert_eq!((told(None, one), told(Some(one), one)), (vec![], vec![]));
    let told = told(Some(one), two);
    let seen: Vec<_> = told.iter().map(|event| (event.id.clone(), event.attributes["leader.new"].as_str())).collect();
    assert_eq!(seen, [(one.to_string(), "false"), (two.to_string(), "true")]);
    assert_eq!((told[1].action.as_str(), told[1].attributes["leader.old"].as_str()), ("update", "false"));
}
