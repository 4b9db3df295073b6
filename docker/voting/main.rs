//! A small voting application, in the parts that such things have: `vote` takes votes by HTTP and puts them on a redis
//! list, `worker` moves them from there into postgres, `result` shows by HTTP what postgres has. Built with `rustc` alone,
//! linked statically; one image, one command for each part.
//!
//! Each part finds the next by its service's name (`REDIS`, `POSTGRES`; `redis:6379` and `postgres:5432` by default), waits
//! for it, and connects anew when it has gone. On SIGTERM the HTTP servers finish what they have begun.

mod http;
mod postgres;
mod redis;

use std::env;
use std::io;
use std::thread;
use std::time::Duration;

use http::{Answer, Request};
use postgres::Postgres;
use redis::Redis;

/// What can be voted for.
const CHOICES: [&str; 2] = ["cats", "dogs"];
const QUEUE: &str = "votes";
/// Between two attempts to reach what is not there yet, doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

fn main() {
    let part = env::args().nth(1).unwrap_or_default();
    let ended = match part.as_str() {
        "vote" => http::serve(port(), vote),
        "worker" => work(),
        "result" => http::serve(port(), result),
        _ => Err(io::Error::other("usage: voting vote|worker|result")),
    };
    if let Err(error) = ended {
        eprintln!("voting {part}: {error}");
        std::process::exit(1);
    }
}

fn port() -> u16 {
    env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(80)
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// `GET /`: the form. `POST /` with `voter=NAME&choice=CHOICE`: a vote; the last one of a voter counts.
fn vote(request: &Request) -> Answer {
    if request.path == "/health" {
        return Answer::text(200, "ok\n");
    }
    if request.method != "POST" {
        return Answer::html(200, form());
    }
    let field = |name: &str| http::field(&request.body, name).filter(|value| is_plain(value));
    let (Some(voter), Some(choice)) = (field("voter"), field("choice")) else {
        return Answer::text(400, "voter and choice are needed, of letters, digits and dashes\n");
    };
    if !CHOICES.contains(&choice) {
        return Answer::text(400, &format!("choice is one of {}\n", CHOICES.join(", ")));
    }
    let pushed = Redis::connect(&setting("REDIS", "redis:6379"))
        .and_then(|mut redis| redis.command(&["RPUSH", QUEUE, &format!("{voter} {choice}")]));
    match pushed {
        Ok(_) => Answer::text(200, &format!("{voter} votes for {choice}\n")),
        Err(error) => Answer::text(503, &format!("the vote was not taken: {error}\n")),
    }
}

fn form() -> String {
    let buttons: String =
        CHOICES.iter().map(|choice| format!("<button name=choice value={choice}>{choice}</button> ")).collect();
    format!(
        "<!doctype html><title>Vote</title><form method=post>You are <input name=voter required> and vote for {buttons}</form>\n"
    )
}

fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// From the list into the table, for ever. A vote that the table does not take goes back to the list's head.
fn work() -> io::Result<()> {
    http::end_at_once_on_sigterm();
    let mut pause = RETRY_FIRST;
    loop {
        let error = match connect_both() {
            Ok((redis, postgres)) => {
                pause = RETRY_FIRST;
                println!("voting worker: at work");
                carry(redis, postgres)
            }
            Err(error) => error,
        };
        eprintln!("voting worker: {error}; again in {} ms", pause.as_millis());
        thread::sleep(pause);
        pause = (pause * 2).min(RETRY_MOST);
    }
}

fn connect_both() -> io::Result<(Redis, Postgres)> {
    let redis = Redis::connect(&setting("REDIS", "redis:6379"))?;
    let mut postgres = Postgres::connect(&setting("POSTGRES", "postgres:5432"), "postgres")?;
    postgres.query("CREATE TABLE IF NOT EXISTS votes (voter text PRIMARY KEY, choice text NOT NULL)")?;
    Ok((redis, postgres))
}

/// Until one of both fails.
fn carry(mut redis: Redis, mut postgres: Postgres) -> io::Error {
    loop {
        let vote = match redis.command(&["BLPOP", QUEUE, "5"]) {
            Ok(Some(vote)) => vote,
            Ok(None) => continue,
            Err(error) => return error,
        };
        let Some((voter, choice)) = vote.split_once(' ').filter(|(voter, choice)| is_plain(voter) && is_plain(choice))
        else {
            eprintln!("voting worker: {vote:?} is no vote");
            continue;
        };
        let stored = postgres.query(&format!(
            "INSERT INTO votes VALUES ('{voter}', '{choice}') ON CONFLICT (voter) DO UPDATE SET choice = EXCLUDED.choice"
        ));
        if let Err(error) = stored {
            return match redis.command(&["LPUSH", QUEUE, &vote]) {
                Ok(_) => error,
                Err(lost) => io::Error::other(format!("{error}; and the vote of {voter} is lost: {lost}")),
            };
        }
    }
}

/// `GET /`: the page. `GET /results`: the counts, as JSON.
fn result(request: &Request) -> Answer {
    if request.path == "/health" {
        return Answer::text(200, "ok\n");
    }
    let counted = Postgres::connect(&setting("POSTGRES", "postgres:5432"), "postgres")
        .and_then(|mut postgres| postgres.query("SELECT choice, count(*) FROM votes GROUP BY choice"));
    let rows = match counted {
        Ok(rows) => rows,
        Err(error) => return Answer::text(503, &format!("the votes cannot be counted: {error}\n")),
    };
    let count = |choice: &str| {
        let row = rows.iter().find(|row| row.first().is_some_and(|name| name == choice));
        row.and_then(|row| row.get(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let counts = CHOICES.map(|choice| (choice, count(choice)));
    if request.path == "/results" {
        let fields = counts.map(|(choice, count)| format!("\"{choice}\":{count}"));
        return Answer::json(200, format!("{{{}}}\n", fields.join(",")));
    }
    let lines = counts.map(|(choice, count)| format!("<li>{choice}: {count}"));
    Answer::html(
        200,
        format!("<!doctype html><title>Result</title><meta http-equiv=refresh content=2><ul>{}</ul>\n", lines.concat()),
    )
}
