//! Look-ups that are passed on.

use std::net::IpAddr;
use std::sync::Arc;

use flok::network::dns::Client;
use flok::spec::NetworkId;

use super::client::{NO_SUCH_NAME, OK, SERVER_FAILURE, Server, ask, ask_by_stream, look_up, question, reply};
use super::host::{networks, on_a_host, on_the_network, run, within};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
#[ignore = "needs root"]
fn the_hosts_servers_are_asked_on_the_host_each_until_one_answers() {
    // The first is nobody; the second refuses; the third knows.
    on_a_host("nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.53\n", |host| async move {
        Server::start("127.0.0.3", 5, vec![], false);
        Server::start("127.0.0.53", OK, vec![ip("192.0.2.80")], false);
        let resolver = host.resolver();
        resolver.set_networks(networks(&["10.0.1.11"]));
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        let found = look_up(&task.netns, "example.com");
        assert_eq!((found.code, found.addresses), (OK, vec![ip("192.0.2.80")]));
        let answer = reply(&ask_by_stream(&task.netns, question("example.com", 1, None)).unwrap());
        assert_eq!(answer.addresses, vec![ip("192.0.2.80")]);
        // Names of the swarm are not asked for outside, nor addresses.
        assert_eq!(look_up(&task.netns, "web").addresses, vec![ip("10.0.1.2")]);
        assert_eq!(look_up(&task.netns, "9.1.0.10.in-addr.arpa").code, NO_SUCH_NAME);
    });
}

#[test]
#[ignore = "needs root"]
fn a_servers_truncated_answer_is_fetched_by_a_connection_where_the_client_can_take_it() {
    on_a_host("nameserver 127.0.0.53\n", |host| async move {
        let many: Vec<IpAddr> = (1..=60).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        Server::start("127.0.0.53", OK, many.clone(), true);
        let resolver = host.resolver();
        let task = host.task(1, Client::default());
        resolver.serve(task.clone()).await.unwrap();
        let large = reply(&ask(&task.netns, question("big.example", 1, Some(4096))).unwrap());
        assert_eq!((large.truncated, large.addresses), (false, many.clone()));
        let small = look_up(&task.netns, "big.example");
        assert_eq!((small.truncated, small.addresses), (true, vec![]));
        let whole = reply(&ask_by_stream(&task.netns, question("big.example", 1, None)).unwrap());
        assert_eq!(whole.addresses, many);
    });
}

#[test]
#[ignore = "needs root"]
fn where_nobody_answers_the_client_is_told() {
    on_a_host("nameserver 127.0.0.2\n", |host| async move {
        let resolver = host.resolver();
        let task = host.task(1, Client::default());
        resolver.serve(task.clone()).await.unwrap();
        assert_eq!(look_up(&task.netns, "example.com").code, SERVER_FAILURE);
    });
}

#[test]
#[ignore = "needs root"]
fn a_tasks_own_servers_are_asked_from_where_the_task_is() {
    on_a_host("nameserver 127.0.0.53\n", |host| async move {
        let resolver = host.resolver();
        let task = host.task(1, Client { servers: vec![ip("192.0.2.53")], ..Client::default() });
        within(&task.netns, || {
            run("ip", &["address", "add", "192.0.2.53/32", "dev", "lo"]);
            Server::start("192.0.2.53", OK, vec![ip("192.0.2.81")], false);
        });
        resolver.serve(task.clone()).await.unwrap();
        assert_eq!(look_up(&task.netns, "example.com").addresses, vec![ip("192.0.2.81")]);
    });
}

#[test]
#[ignore = "needs root"]
fn from_internal_networks_nothing_is_asked_outside() {
    on_a_host("nameserver 127.0.0.53\n", |host| async move {
        Server::start("127.0.0.53", OK, vec![ip("192.0.2.80")], false);
        let mut networks = networks(&["10.0.1.11"]);
        Arc::make_mut(networks.list.get_mut(&NetworkId(1)).unwrap()).internal = true;
        let resolver = host.resolver();
        resolver.set_networks(networks);
        let task = host.task(1, on_the_network());
        resolver.serve(task.clone()).await.unwrap();
        assert_eq!(look_up(&task.netns, "example.com").code, NO_SUCH_NAME);
        assert_eq!(look_up(&task.netns, "web").addresses, vec![ip("10.0.1.2")]);
    });
}
