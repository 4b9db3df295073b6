//! Clients that are slow, half open, or too many: the others are served, counted one by one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::backend::CONTAINER;
use super::client::{Answer, Server};

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: flok\r\n\r\n";
const ENOUGH: usize = 600;

/// As many answers as there are requests, each on a connection of its own.
fn others_are_served(server: &Server) {
    for _ in 0..50 {
        assert_eq!(server.ask("GET", "/services", b"").unwrap().status, 200);
    }
}

/// How many of the connections have been ended by the server.
fn ended(streams: &mut [UnixStream]) -> usize {
    let is_ended = |stream: &mut UnixStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0; 16]);
        matches!(read, Ok(0)) || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    };
    streams.iter_mut().filter_map(|stream| is_ended(stream).then_some(())).count()
}

#[test]
fn connections_that_ask_nothing_give_way_to_those_that_ask() {
    let server = Server::start();
    // Silent, in the middle of a head, and idle after an answer.
    let mut silent: Vec<UnixStream> = Vec::new();
    for index in 0..ENOUGH {
        let mut stream = server.connect();
        match index % 3 {
            0 => {}
            1 => stream.write_all(b"GET /services HTTP/1.1\r\nX-Half: ").unwrap(),
            _ => {
                stream.write_all(PING).unwrap();
                assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
            }
        }
        silent.push(stream);
    }
    others_are_served(&server);
    let gone = ended(&mut silent);
    assert!(gone > ENOUGH - 512 && gone < ENOUGH, "{gone} were closed");
    // The longest wait ended first.
    assert_eq!(ended(&mut silent[..50]), 50);
}

#[test]
fn bodies_that_do_not_come_hold_nobody_up() {
    let server = Server::start();
    let mut slow: Vec<UnixStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = server.connect();
        stream
            .write_all(b"POST /services/create HTTP/1.1\r\nHost: f\r\nContent-Length: 16000000\r\n\r\n{\"Name\":")
            .unwrap();
        slow.push(stream);
    }
    others_are_served(&server);
    let config = br#"{"Name":"c","Data":"eA=="}"#;
    assert_eq!(server.ask("POST", "/configs/create", config).unwrap().status, 201);
    assert_eq!(ended(&mut slow), 0);
}

#[test]
fn answers_that_nobody_reads_hold_nobody_up() {
    let server = Server::start();
    for index in 0..50 {
        let body = format!(r#"{{"Name":"c{index}","Data":"{}"}}"#, "eHh4".repeat(5000));
        assert_eq!(server.ask("POST", "/configs/create", body.as_bytes()).unwrap().status, 201);
    }
    let mut deaf: Vec<UnixStream> = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect();
        // A megabyte, which no socket holds.
        stream.write_all(b"GET /configs HTTP/1.1\r\nHost: f\r\n\r\n").unwrap();
        deaf.push(stream);
    }
    others_are_served(&server);
    // It was there all the time.
    let read = Answer::read(&mut deaf[0]).unwrap();
    assert!(read.status == 200 && read.body.len() > 1_000_000);
}

#[test]
fn more_requests_at_once_than_are_served_are_told_so_and_are_served_later() {
    let server = Server::start();
    let mut listening: Vec<UnixStream> = Vec::new();
    let ask = |listening: &mut Vec<UnixStream>| {
        let mut stream = server.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: f\r\n\r\n").unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        listening.push(stream);
        answer.status
    };
    let answers: Vec<u16> = (0..520).map(|_| ask(&mut listening)).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 512);
    assert!(answers[512..].iter().all(|status| *status == 503), "{:?}", &answers[512..]);
    assert_eq!(server.ask("GET", "/services", b"").unwrap().status, 503);
    drop(listening);
    // Their ends are seen one by one.
    let mut tries = (0..1000).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        server.ask("GET", "/services", b"").map_or(0, |answer| answer.status)
    });
    assert!(tries.any(|status| status == 200));
}

#[test]
fn what_is_under_way_when_the_daemon_stops_is_answered() {
    let mut server = Server::start();
    let (mut idle, mut asking) = (server.connect(), server.connect());
    idle.write_all(PING).unwrap();
    assert_eq!(Answer::read(&mut idle).unwrap().status, 200);
    let body = br#"{"Name":"c","Data":"eA=="}"#;
    let head = format!(
        "POST /configs/create HTTP/1.1\r\nHost: f\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    asking.write_all(head.as_bytes()).unwrap();
    // It is being answered: the server asks for the rest.
    let mut continued = [0; 25];
    asking.read_exact(&mut continued).unwrap();
    assert_eq!(continued, *b"HTTP/1.1 100 Continue\r\n\r\n");
    server.stop();
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0);
    asking.write_all(body).unwrap();
    assert_eq!(Answer::read(&mut asking).unwrap().status, 201);
}

const START: &str =
    "POST /exec/e0/start HTTP/1.1\r\nHost: f\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";

/// A connection that a command has taken over; what it sends comes back.
fn taken_over(server: &Server) -> UnixStream {
    let mut stream = server.connect();
    stream.write_all(START.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status, 101);
    stream
}

#[test]
fn taken_over_connections_carry_until_both_ends_are_closed() {
    let server = Server::start();
    let mut stream = taken_over(&server);
    let (mut piece, sent) = ([0; 5], vec![b'x'; 1 << 20]);
    stream.write_all(b"words").unwrap();
    stream.read_exact(&mut piece).unwrap();
    assert_eq!(&piece, b"words");
    // More than any body may have at once, with the end of the input behind it.
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        (0..20).for_each(|_| writer.write_all(&sent).unwrap());
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert_eq!(back.len(), 20 << 20);

    // Together with the request, and with its end: nothing of it is lost.
    let mut stream = server.connect();
    stream.write_all(format!("{START}early").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 101") && told.ends_with("\r\n\r\nearly"), "{told}");
}

#[test]
fn taken_over_connections_keep_their_places_and_give_them_back() {
    let server = Server::start();
    let mut taken: Vec<UnixStream> = (0..512).map(|_| taken_over(&server)).collect();
    assert_eq!(server.ask("GET", "/services", b"").unwrap().status, 503);
    assert_eq!(ended(&mut taken), 0);
    drop(taken);
    let mut tries = (0..1000).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        server.ask("GET", "/services", b"").map_or(0, |answer| answer.status)
    });
    assert!(tries.any(|status| status == 200));
}

#[test]
fn pipelined_and_kept_connections_are_answered_in_turn() {
    let server = Server::start();
    let mut stream = server.connect();
    for _ in 0..100 {
        stream.write_all(PING).unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
    }
    let path = format!("GET /containers/{CONTAINER}/json HTTP/1.1\r\nHost: f\r\n\r\n");
    stream.write_all(path.repeat(2).as_bytes()).unwrap();
    let first = Answer::read(&mut stream).unwrap();
    assert!(first.status == 200 && first.body.contains(CONTAINER));
}

#[test]
fn bodies_that_come_after_their_answer_are_no_requests() {
    let server = Server::start();
    let hidden = format!("GET /containers/{CONTAINER}/json HTTP/1.1\r\nHost: f\r\n\r\n");
    // Each quote would grow to three bytes if it were taken for a part of a request's first line.
    let body = format!("{}\n{hidden}", "\"".repeat(hidden.len() / 2));
    let mut stream = server.connect();
    for asked in ["GET /_ping", "GET /version", "DELETE /services/nope", "POST /build", "POST /containers/nope/stop"] {
        write!(stream, "{asked} HTTP/1.1\r\nHost: f\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        Answer::read(&mut stream).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream.write_all(b"GET /_ping?filters={\"a\":[\"b\"]} HTTP/1.1\r\nHost: f\r\n\r\n").unwrap();
        let next = Answer::read(&mut stream).unwrap();
        assert_eq!((next.status, next.body.as_str()), (200, "OK"), "{asked}");
    }
}
