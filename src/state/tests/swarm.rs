use super::words;
use crate::spec::*;
use crate::state::fixture::*;
use crate::state::*;

#[test]
fn a_log_belongs_to_one_swarm() {
    let mut swarm = Fixture::nodes(1);
    let again = Command::InitSwarm { swarm: Box::new(a_swarm()), node: Box::new(a_node(2)) };
    assert!(words(swarm.try_command(again)).contains("already belongs to swarm"));
}

#[test]
fn nothing_is_done_before_there_is_a_swarm() {
    let mut state = State::default();
    let proposal = Proposal { client: ClientId(1), sequence: 1, answered_below: 0 };
    let entry = |command| Entry { proposal, at: UnixMs(1), command };
    let admit = entry(Command::AdmitNode { node: Box::new(a_node(1)) });
    assert!(words(state.apply(1, &admit).unwrap()).contains("flok swarm init"));
    assert_eq!(state.nodes().count(), 0);
}

#[test]
fn the_first_node_is_a_manager() {
    let mut worker = a_node(1);
    worker.spec.role = Role::Worker;
    let mut swarm = Fixture::nodes(1);
    swarm.state = State::default();
    let init = Command::InitSwarm { swarm: Box::new(a_swarm()), node: Box::new(worker) };
    assert!(words(swarm.try_command(init)).contains("manager"));
}

#[test]
fn an_update_from_an_old_version_is_out_of_sequence() {
    let mut swarm = Fixture::nodes(1);
    let version = swarm.state.swarm().unwrap().meta.version;
    let spec = SwarmSpec { task_history: 2, ..SwarmSpec::default() };
    swarm.command(Command::UpdateSwarm { version, spec: spec.clone(), unlock_key: None });
    assert_eq!(swarm.state.swarm().unwrap().spec.task_history, 2);
    assert_eq!(
        words(swarm.try_command(Command::UpdateSwarm { version, spec, unlock_key: None })),
        "update out of sequence"
    );
}

#[test]
fn a_swarm_is_locked_by_a_key_and_by_none_when_it_is_not() {
    let mut swarm = Fixture::nodes(1);
    let mut update = |autolock: bool, key: Option<u8>| {
        let version = swarm.state.swarm().unwrap().meta.version;
        let spec = SwarmSpec { autolock, ..SwarmSpec::default() };
        let unlock_key = key.map(|byte| SecretBytes(vec![byte; 32]));
        let done = swarm.try_command(Command::UpdateSwarm { version, spec, unlock_key });
        let after = swarm.state.swarm().unwrap();
        assert_eq!(after.spec.autolock, after.unlock_key.is_some());
        done.map(|_| after.unlock_key.as_ref().map(|key| key.0[0])).map_err(|refused| refused.to_string())
    };
    assert!(update(true, None).unwrap_err().contains("needs an unlock key"));
    assert!(update(false, Some(1)).unwrap_err().contains("no unlock key to set"));
    assert_eq!(update(true, Some(1)), Ok(Some(1)));
    assert_eq!(update(true, None), Ok(Some(1)), "it stays");
    assert_eq!(update(true, Some(2)), Ok(Some(2)), "rotated");
    assert_eq!(update(false, None), Ok(None));
}

#[test]
fn a_rotated_token_replaces_the_one_of_its_role() {
    let mut swarm = Fixture::nodes(1);
    let secret = SecretBytes(vec![9; 16]);
    swarm.command(Command::RotateToken { version: None, role: Role::Worker, secret: secret.clone() });
    let after = swarm.state.swarm().unwrap();
    assert_eq!((&after.worker_token, after.token_generation), (&secret, 1));
    assert_eq!(after.manager_token, a_swarm().manager_token);
    let empty = Command::RotateToken { version: None, role: Role::Worker, secret: SecretBytes(vec![]) };
    assert!(words(swarm.try_command(empty)).contains("secret"));
}

#[test]
fn the_feature_level_rises_when_every_member_knows_it() {
    let mut swarm = Fixture::nodes(2);
    let next = FeatureLevel(FEATURE_LEVEL.0 + 1);
    let refused = words(swarm.try_command(Command::RaiseFeatureLevel { to: next }));
    assert!(refused.contains("node-1") && refused.contains("upgrade flok"), "{refused}");
    assert!(words(swarm.try_command(Command::RaiseFeatureLevel { to: FeatureLevel(0) })).contains("only ever rises"));
    swarm.command(Command::RaiseFeatureLevel { to: FEATURE_LEVEL });
}

#[test]
fn a_build_that_knows_less_stops_and_changes_nothing() {
    let mut swarm = Fixture::nodes(1);
    let next = FeatureLevel(FEATURE_LEVEL.0 + 1);
    let description = NodeDescription { feature_level: next, ..a_node(1).description };
    swarm.change(Change::DescribeNode { node: node(1), description: Box::new(description) });
    let before = swarm.state.clone();
    let proposal = Proposal { client: ClientId(2), sequence: 1, answered_below: 0 };
    let raise = Entry { proposal, at: UnixMs(1), command: Command::RaiseFeatureLevel { to: next } };
    let stop = swarm.state.apply(before.applied() + 1, &raise).unwrap_err();
    assert_eq!(stop, BeyondBuild { level: next });
    assert!(stop.to_string().contains("upgrade flok on this node"));
    assert_eq!(swarm.state, before);
}
