//! Schedules: what is read, what is refused, and which points come when clocks change.

use proptest::prelude::*;

use super::*;

fn rule(cron: &str, time_zone: &str) -> Rule {
    Schedule { time_zone: time_zone.into(), ..Schedule::new(cron) }.rule().expect("it can be read")
}

fn at(text: &str) -> UnixMs {
    UnixMs(u64::try_from(text.parse::<Timestamp>().expect("a time").as_millisecond()).expect("after 1970"))
}

/// The first points after `from`, in the zone's own time.
fn points(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let rule = rule(cron, zone);
    let points = std::iter::successors(rule.next_after(at(from)), |point| rule.next_after(*point));
    points.take(count).map(|point| shown(point, zone)).collect()
}

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect()
}

fn refused(of: &[(&str, &str)]) -> String {
    Schedule::read_labels(&labels(of)).unwrap_err()
}

#[test]
fn labels_say_all_of_a_schedule() {
    let read = Schedule::read_labels(&labels(&[
        ("flok.schedule", "30 3 * * mon-fri"),
        ("flok.schedule.time-zone", "Europe/Berlin"),
        ("flok.schedule.window", "10m"),
        ("flok.schedule.concurrency", "replace"),
        ("flok.schedule.history", "7"),
        ("flok.schedule.suspend", "true"),
        ("other", "x"),
    ]));
    let expected = Schedule {
        cron: "30 3 * * mon-fri".into(),
        time_zone: "Europe/Berlin".into(),
        window: Duration::from_secs(600),
        concurrency: Concurrency::Replace,
        history: 7,
        suspend: true,
    };
    assert_eq!(read, Ok(Some(expected.clone())));
    assert_eq!(Schedule::read_labels(&expected.labels()), Ok(Some(expected)));
    assert_eq!(Schedule::read_labels(&labels(&[("other", "x")])), Ok(None));
    assert_eq!(Schedule::read_labels(&labels(&[("flok.schedule", "")])), Ok(None));
}

#[test]
fn what_cannot_be_read_is_named_with_what_can() {
    let with = |label: &str, text: &str| refused(&[("flok.schedule", "@daily"), (label, text)]);
    for (why, part) in [
        (refused(&[("flok.schedule", "61 * * * *")]), "as its minute \"61\" is none from 0 to 59"),
        (refused(&[("flok.schedule", "* * * * fri-mon")]), "as its weekday \"fri-mon\" is none from 0 to 7"),
        (refused(&[("flok.schedule", "70 * * * * *")]), "as its second \"70\""),
        (refused(&[("flok.schedule", "@fortnightly")]), "@every 10m"),
        (refused(&[("flok.schedule", "* * * *")]), "write minute, hour, day, month and weekday"),
        (refused(&[("flok.schedule", "0 0 1 1 * * 2027")]), "is no cron expression"),
        (refused(&[("flok.schedule", "0 0 30 2 *")]), "never comes"),
        (refused(&[("flok.schedule", "@every 1ms")]), "from 1s to a year"),
        (refused(&[("flok.schedule", "@every soon")]), "in \"@every soon\""),
        (refused(&[("flok.schedule.window", "1m")]), "it needs a label flok.schedule beside it"),
        (with("flok.schedule.time-zone", "Europe/Berln"), "did you mean Europe/Berlin?"),
        (with("flok.schedule.time-zone", "Mars"), "there is no time zone \"Mars\""),
        (with("flok.schedule.window", "9000h"), "not from 1s to a year"),
        (with("flok.schedule.history", "101"), "from 0 to 100"),
        (with("flok.schedule.concurrency", "never"), "none of allow, forbid, replace"),
        (with("flok.schedule.suspended", "true"), "is none of time-zone"),
    ] {
        assert!(why.contains(part) && why.starts_with("label flok.schedule"), "{part} in {why}");
    }
}

#[test]
fn nicknames_seconds_and_periods_are_read() {
    let from = "2026-05-01T10:17:03Z";
    assert_eq!(points("@hourly", "UTC", from, 1), ["2026-05-01 11:00:00 UTC"]);
    assert_eq!(points("@daily", "Asia/Kolkata", from, 1), ["2026-05-02 00:00:00 IST"]);
    assert_eq!(points("*/20 * * * * *", "UTC", from, 2), ["2026-05-01 10:17:20 UTC", "2026-05-01 10:17:40 UTC"]);
    assert_eq!(points("@every 10m", "UTC", from, 2), ["2026-05-01 10:20:00 UTC", "2026-05-01 10:30:00 UTC"]);
    assert_eq!(points("0 12 29 2 *", "UTC", from, 1), ["2028-02-29 12:00:00 UTC"]);
}

/// On 29 March 2026 it is never between two and three in Berlin.
#[test]
fn a_time_that_a_day_does_not_have_is_due_when_the_gap_is_over() {
    let from = "2026-03-28T12:00:00Z";
    let fixed = points("30 2 * * *", "Europe/Berlin", from, 2);
    assert_eq!(fixed, ["2026-03-29 03:00:00 CEST", "2026-03-30 02:30:00 CEST"]);
    let steps = points("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:20:00Z", 3);
    assert_eq!(steps, ["2026-03-29 01:30:00 CET", "2026-03-29 03:00:00 CEST", "2026-03-29 03:30:00 CEST"]);
}

/// On 25 October 2026 it is twice between two and three in Berlin.
#[test]
fn a_time_that_a_day_has_twice_is_due_once_and_steps_go_through_both_hours() {
    let fixed = points("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(fixed, ["2026-10-25 02:30:00 CEST", "2026-10-26 02:30:00 CET"]);
    let steps = points("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 5);
    let expected = ["02:00:00 CEST", "02:30:00 CEST", "02:00:00 CET", "02:30:00 CET", "03:00:00 CET"];
    assert_eq!(steps, expected.map(|time| format!("2026-10-25 {time}")));
}

#[test]
fn what_was_due_meanwhile_is_counted_and_the_last_of_it_found() {
    let rule = rule("*/5 * * * *", "UTC");
    let (due, now) = (at("2026-05-01T10:05:00Z"), at("2026-05-01T10:23:20Z"));
    assert_eq!(rule.last_until(due, now), at("2026-05-01T10:20:00Z"));
    assert_eq!(rule.count(due, at("2026-05-01T10:20:00Z")), 3);
    assert_eq!(rule.count(due, at("2027-05-01T10:20:00Z")), MAX_COUNTED);
}

const CRONS: [&str; 9] = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 0 1 * *",
    "15 1-3 * * sun",
    "0 */2 * * *",
    "*/13 * * * * *",
    "0 12 29 2 *",
    "@every 90s",
];
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"];

proptest! {
    /// Points only go forward, none lies between one and its next, and a search from anywhere finds the same ones.
    #[test]
    fn points_follow_one_another(
        cron in prop::sample::select(&CRONS[..]),
        zone in prop::sample::select(&ZONES[..]),
        start in 1_200_000_000_000u64..2_000_000_000_000,
        ahead in 0u64..90 * 24 * 3_600_000,
    ) {
        let rule = rule(cron, zone);
        let first = rule.next_after(UnixMs(start)).expect("it comes");
        prop_assert!(first > UnixMs(start));
        let now = UnixMs(first.0 + ahead);
        let last = rule.last_until(first, now);
        let next = rule.next_after(last).expect("it comes again");
        prop_assert!(first <= last && last <= now && now < next, "{first:?} {last:?} {now:?} {next:?}");
        // From the moment before, it is the same point.
        prop_assert_eq!(rule.next_after(UnixMs(last.0 - 1)), Some(last));
    }
}
