//! The rules of one table that is not ours, as far as they can be told apart for the swarm's packets, and what becomes of
//! a packet there. Pure.
//!
//! A rule may match for reasons that are not known here (a set, a mark, a rate). So an answer is the set of all that may
//! become of a packet, and only one that can be nothing but dropped is said to be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::spec::Subnet;

/// Rules looked at for one packet; beyond them anything may happen.
const MAX_STEPS: usize = 50_000;
/// Chains within chains, as the kernel has it.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it is a base chain.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub hook: Hook,
    /// What is left at its end is dropped.
    pub drops: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It only counts, marks or logs.
    #[default]
    Continue,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// The first that matches, if any.
    OneOf(Vec<(Match, Verdict)>),
    /// What this means is not known here.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub of: Of,
    pub negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// Names; those that end in `*` are of all that begin so.
    In(Vec<String>),
    Out(Vec<String>),
    States(Vec<State>),
    /// Its destination was translated.
    Translated,
    Protocols(Vec<String>),
    /// Destinations.
    Ports(Vec<(u16, u16)>),
    /// Of this protocol, and to one of these ports, where that is known.
    Within(String, Option<Vec<(u16, u16)>>),
    Sources(Vec<Subnet>),
    Destinations(Vec<Subnet>),
    /// To an address of this host.
    ToLocal,
    Ipv6(bool),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

/// A packet of the swarm's at one hook.
#[derive(Debug, Clone)]
pub struct Packet {
    pub hook: Hook,
    pub ipv6: bool,
    pub from: Option<String>,
    pub to: Option<String>,
    pub state: State,
    pub translated: bool,
    pub protocol: &'static str,
    /// `None`: any that programs may choose.
    pub port: Option<u16>,
    /// What its addresses may be; none: any.
    pub sources: Vec<IpAddr>,
    pub destinations: Vec<IpAddr>,
    pub to_local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

/// What may become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fates {
    accepted: bool,
    dropped: bool,
    returned: bool,
    goes_on: bool,
}

const ACCEPTED: Fates = Fates { accepted: true, dropped: false, returned: false, goes_on: false };
const DROPPED: Fates = Fates { dropped: true, accepted: false, returned: false, goes_on: false };
const RETURNED: Fates = Fates { returned: true, accepted: false, dropped: false, goes_on: false };
const GOES_ON: Fates = Fates { goes_on: true, accepted: false, dropped: false, returned: false };
const ANYTHING: Fates = Fates { accepted: true, dropped: true, returned: true, goes_on: true };

impl Fates {
    fn or(self, other: Fates) -> Fates {
        Fates {
            accepted: self.accepted || other.accepted,
            dropped: self.dropped || other.dropped,
            returned: self.returned || other.returned,
            goes_on: self.goes_on || other.goes_on,
        }
    }
}

impl Table {
    /// The base chains that drop this packet whatever is not known of it.
    pub fn dropping(&self, packet: &Packet) -> Vec<&str> {
        let bases = self.chains.iter().filter_map(|(name, chain)| Some((name, chain.base?)));
        let at_hook = bases.filter(|(_, base)| base.hook == packet.hook);
        at_hook.filter(|(name, base)| self.drops(name, base, packet)).map(|(name, _)| name.as_str()).collect()
    }

    fn drops(&self, name: &str, base: &Base, packet: &Packet) -> bool {
        let mut walk = Walk { table: self, packet, known: BTreeMap::new(), steps: 0 };
        let fates = walk.chain(name, 0);
        let passes = fates.accepted || ((fates.returned || fates.goes_on) && !base.drops);
        !passes
    }
}

struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet,
    known: BTreeMap<&'a str, Fates>,
    steps: usize,
}

impl<'a> Walk<'a> {
    /// What may become of the packet in a chain, whose end is a return.
    fn chain(&mut self, name: &str, depth: usize) -> Fates {
        let Some((name, chain)) = self.table.chains.get_key_value(name) else { return ANYTHING };
        if let Some(known) = self.known.get(name.as_str()) {
            return *known;
        }
        if depth > MAX_DEPTH {
            return ANYTHING;
        }
        let fates = self.rules(chain, depth);
        self.known.insert(name, fates);
        fates
    }

    fn rules(&mut self, chain: &'a Chain, depth: usize) -> Fates {
        let mut fates = Fates::default();
        for rule in &chain.rules {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return ANYTHING;
            }
            let matches = all(&rule.matches, self.packet);
            if matches == Truth::No {
                continue;
            }
            let of_rule = self.verdict(&rule.verdict, depth);
            let may_go_on = matches == Truth::Maybe || of_rule.goes_on;
            fates = fates.or(Fates { goes_on: false, ..of_rule });
            if !may_go_on {
                return fates;
            }
        }
        fates.or(RETURNED)
    }

    fn verdict(&mut self, verdict: &'a Verdict, depth: usize) -> Fates {
        match verdict {
            Verdict::Continue => GOES_ON,
            Verdict::Accept => ACCEPTED,
            Verdict::Drop => DROPPED,
            Verdict::Return => RETURNED,
            Verdict::Goto(chain) => self.chain(chain, depth + 1),
            Verdict::Jump(chain) => {
                let inside = self.chain(chain, depth + 1);
                Fates { returned: false, goes_on: inside.goes_on || inside.returned, ..inside }
            }
            Verdict::OneOf(choices) => {
                let mut fates = Fates::default();
                for (choice, verdict) in choices {
                    let matches = choice.holds(self.packet);
                    if matches != Truth::No {
                        fates = fates.or(self.verdict(verdict, depth));
                    }
                    if matches == Truth::Yes {
                        return fates;
                    }
                }
                fates.or(GOES_ON)
            }
            Verdict::Unknown => ANYTHING,
        }
    }
}

fn all(matches: &[Match], packet: &Packet) -> Truth {
    let mut truth = Truth::Yes;
    for one in matches {
        match one.holds(packet) {
            Truth::No => return Truth::No,
            Truth::Maybe => truth = Truth::Maybe,
            Truth::Yes => {}
        }
    }
    truth
}

impl Match {
    pub fn unknown() -> Match {
        Match { of: Of::Unknown, negated: false }
    }

    fn holds(&self, packet: &Packet) -> Truth {
        match (self.of.holds(packet), self.negated) {
            (Truth::Yes, true) => Truth::No,
            (Truth::No, true) => Truth::Yes,
            (truth, _) => truth,
        }
    }
}

impl Of {
    fn holds(&self, packet: &Packet) -> Truth {
        match self {
            Of::In(names) => interface(names, packet.from.as_deref()),
            Of::Out(names) => interface(names, packet.to.as_deref()),
            Of::States(states) => known(states.contains(&packet.state)),
            Of::Translated => known(packet.translated),
            Of::Protocols(names) => known(names.iter().any(|name| name == packet.protocol)),
            Of::Ports(ranges) => ports(ranges, packet.port),
            Of::Within(protocol, _) if protocol != packet.protocol => Truth::No,
            Of::Within(_, ranges) => ranges.as_ref().map_or(Truth::Maybe, |ranges| ports(ranges, packet.port)),
            Of::Sources(subnets) => addresses(subnets, &packet.sources, packet.ipv6),
            Of::Destinations(subnets) => addresses(subnets, &packet.destinations, packet.ipv6),
            Of::ToLocal => known(packet.to_local),
            Of::Ipv6(ipv6) => known(*ipv6 == packet.ipv6),
            Of::Unknown => Truth::Maybe,
        }
    }
}

fn known(holds: bool) -> Truth {
    if holds { Truth::Yes } else { Truth::No }
}

fn interface(names: &[String], of_packet: Option<&str>) -> Truth {
    let Some(name) = of_packet else { return Truth::No };
    known(names.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == wanted,
    }))
}

/// A few ports let through are no way for programs that may choose any.
fn ports(ranges: &[(u16, u16)], of_packet: Option<u16>) -> Truth {
    const UNPRIVILEGED: u16 = 1024;
    known(match of_packet {
        Some(port) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)),
        None => ranges.iter().any(|(first, last)| *first <= UNPRIVILEGED && *last == u16::MAX),
    })
}

fn addresses(subnets: &[Subnet], of_packet: &[IpAddr], ipv6: bool) -> Truth {
    if subnets.iter().all(|subnet| subnet.base().is_ipv6() != ipv6) {
        return Truth::No;
    }
    if subnets.iter().any(|subnet| subnet.prefix() == 0 && subnet.base().is_ipv6() == ipv6) {
        return Truth::Yes;
    }
    let contained = of_packet.iter().filter(|at| subnets.iter().any(|subnet| subnet.contains(**at))).count();
    match contained {
        _ if of_packet.is_empty() => Truth::Maybe,
        0 => Truth::No,
        all if all == of_packet.len() => Truth::Yes,
        _ => Truth::Maybe,
    }
}
