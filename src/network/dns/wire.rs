//! DNS messages (RFC 1035, 6891), as much of them as a resolver needs that answers few types and passes on the rest:
//! questions are read, own answers are written, everything else is handed through as the bytes it came as.
//!
//! What is read comes from any process in any container: nothing here trusts a length, follows a pointer twice or
//! allocates by what a message says.

use std::net::IpAddr;

/// Longest query taken; real ones are below 512 bytes.
pub const MAX_QUERY: usize = 4096;
/// Most that is sent in one datagram, whatever the client says it can take.
pub const MAX_DATAGRAM: usize = 4096;
/// What a client that says nothing can take.
const PLAIN_DATAGRAM: usize = 512;
/// Longest message over TCP, and the longest answer taken from a server.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

const HEADER: usize = 12;
const MAX_LABEL: usize = 63;
/// Of a name on the wire, the root's empty label included.
const MAX_NAME: usize = 255;
/// A name by reference to the question's, which always follows the header.
const POINTER_TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_AUTHORITATIVE: u8 = 0x04;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
const OPCODE: u8 = 0x78;

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// Types of records that this resolver has itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Ptr,
    Any,
    Other,
}

impl Kind {
    fn of(number: u16) -> Kind {
        match number {
            1 => Kind::A,
            28 => Kind::Aaaa,
            12 => Kind::Ptr,
            255 => Kind::Any,
            _ => Kind::Other,
        }
    }

    pub fn wants(self, address: &IpAddr) -> bool {
        match self {
            Kind::A => address.is_ipv4(),
            Kind::Aaaa => address.is_ipv6(),
            Kind::Any => true,
            Kind::Ptr | Kind::Other => false,
        }
    }
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Malformed = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    Address(IpAddr),
    Pointer(&'a str),
}

/// A query as it was read, with the bytes that an answer repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    pub id: u16,
    /// Lower case, without the dot at its end. `None` where a label holds a dot or is no ASCII: such a name is nobody's
    /// here.
    pub name: Option<String>,
    pub kind: Kind,
    pub internet: bool,
    recursion_desired: bool,
    /// What the client can take by EDNS, if it spoke it.
    edns: Option<u16>,
    question: &'a [u8],
}

/// Why a message is not answered as a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// No query at all, or too short to have an id: answering might begin a loop.
    Ignored,
    /// Answered by [`refusal`].
    Refused { id: u16, code: Code },
}

impl<'a> Query<'a> {
    pub fn read(message: &'a [u8]) -> Result<Query<'a>, Unread> {
        if message.len() < HEADER || message[2] & FLAG_RESPONSE != 0 {
            return Err(Unread::Ignored);
        }
        let id = u16_at(message, 0).ok_or(Unread::Ignored)?;
        let refused = |code| Unread::Refused { id, code };
        if message[2] & OPCODE != 0 {
            return Err(refused(Code::NotImplemented));
        }
        let counts = [4, 6, 8, 10].map(|at| u16_at(message, at).unwrap_or(0));
        let [1, 0, 0, additional] = counts else { return Err(refused(Code::Malformed)) };
        let read = || {
            let (name, end) = read_name(message)?;
            let kind = u16_at(message, end)?;
            let class = u16_at(message, end + 2)?;
            let edns = find_edns(message, end + 4, additional)?;
            Some(Query {
                id,
                name,
                kind: Kind::of(kind),
                internet: class == CLASS_IN,
                recursion_desired: message[2] & FLAG_RECURSION_DESIRED != 0,
                edns,
                question: &message[HEADER..end + 4],
            })
        };
        read().ok_or(refused(Code::Malformed))
    }

    /// The longest answer that this client takes in a datagram.
    pub fn datagram_limit(&self) -> usize {
        self.edns.map_or(PLAIN_DATAGRAM, |size| usize::from(size).clamp(PLAIN_DATAGRAM, MAX_DATAGRAM))
    }

    /// Whether `message` answers this question, under the id that the question was passed on with.
    pub fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let end = HEADER + self.question.len();
        message.len() >= HEADER
            && u16_at(message, 0) == Some(id)
            && message[2] & FLAG_RESPONSE != 0
            // A server that could not read the question need not repeat it.
            && (u16_at(message, 4) == Some(0) && code_of(message) != Code::Ok as u8
                || message.get(HEADER..end).is_some_and(|question| question.eq_ignore_ascii_case(self.question)))
    }

    /// Writes an answer of at most `limit` bytes; what does not fit is left out, and said.
    pub fn answer(&self, code: Code, ttl: u32, records: &[Record<'_>], limit: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.id.to_be_bytes());
        out.push(FLAG_RESPONSE | FLAG_AUTHORITATIVE | if self.recursion_desired { FLAG_RECURSION_DESIRED } else { 0 });
        out.push(FLAG_RECURSION_AVAILABLE | code as u8);
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend_from_slice(self.question);
        let edns: &[u8] = match self.edns {
            Some(_) => &[0, 0, TYPE_OPT as u8, (MAX_DATAGRAM >> 8) as u8, MAX_DATAGRAM as u8, 0, 0, 0, 0, 0, 0],
            None => &[],
        };
        let mut count = 0u16;
        for record in records {
            let before = out.len();
            if !write_record(record, ttl, out) || out.len() + edns.len() > limit || count == u16::MAX {
                out.truncate(before);
                out[2] |= FLAG_TRUNCATED;
                break;
            }
            count += 1;
        }
        out[6..8].copy_from_slice(&count.to_be_bytes());
        out.extend_from_slice(edns);
    }
}

/// The answer to what could not be read: its header alone.
pub fn refusal(id: u16, code: Code) -> [u8; HEADER] {
    let [high, low] = id.to_be_bytes();
    [high, low, FLAG_RESPONSE, FLAG_RECURSION_AVAILABLE | code as u8, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Whether `message`, a response, says that it is not whole.
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & FLAG_TRUNCATED != 0)
}

/// The response code of `message`.
pub fn code_of(message: &[u8]) -> u8 {
    message.get(3).map_or(Code::ServerFailure as u8, |flags| flags & 0x0f)
}

pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// `message`, a response that is longer than its client can take, cut to its question.
pub fn cut(query: &Query<'_>, message: &[u8], out: &mut Vec<u8>) {
    query.answer(Code::Ok, 0, &[], MAX_DATAGRAM, out);
    out[2] = message[2] | FLAG_TRUNCATED;
    out[3] = message[3];
}

/// Whether `name` can be written: labels of 1 to 63 bytes, 253 in all.
pub fn is_writable(name: &str) -> bool {
    name.len() + 2 <= MAX_NAME && name.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

fn write_record(record: &Record<'_>, ttl: u32, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&POINTER_TO_QUESTION);
    let mut header = |kind: u16, length: usize| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(length as u16).to_be_bytes());
    };
    match record {
        Record::Address(IpAddr::V4(address)) => {
            header(1, 4);
            out.extend_from_slice(&address.octets());
        }
        Record::Address(IpAddr::V6(address)) => {
            header(28, 16);
            out.extend_from_slice(&address.octets());
        }
        Record::Pointer(name) => {
            if !is_writable(name) {
                return false;
            }
            header(12, name.len() + 2);
            for label in name.split('.') {
                out.push(label.len() as u8);
                out.extend_from_slice(label.as_bytes());
            }
            out.push(0);
        }
    }
    true
}

/// The question's name, and where it ends. No pointers: there is nothing before it to point to.
fn read_name(message: &[u8]) -> Option<(Option<String>, usize)> {
    let mut name = Some(String::with_capacity(32));
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if at - HEADER + length > MAX_NAME || length > MAX_LABEL {
            return None;
        }
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length)?;
        at += length;
        if label.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'.') {
            name = None;
        }
        if let Some(name) = &mut name {
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
    }
}

/// The datagram size in the OPT record among the `count` records at `at`. `None`: the message is malformed.
fn find_edns(message: &[u8], mut at: usize, count: u16) -> Option<Option<u16>> {
    let mut edns = None;
    for _ in 0..count {
        at = skip_name(message, at)?;
        let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
        let length = usize::from(u16_at(message, at + 8)?);
        at += 10;
        message.get(at..at + length)?;
        at += length;
        if kind == TYPE_OPT {
            edns = Some(class);
        }
    }
    Some(edns)
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if usize::from(length) <= MAX_LABEL => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for `name`, as a stub resolver sends it.
    fn query(id: u16, name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        if let Some(size) = edns {
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    /// The addresses in an answer that [`Query::answer`] wrote, and its code.
    fn addresses(message: &[u8]) -> (u8, Vec<IpAddr>) {
        let count = u16_at(message, 6).unwrap();
        let mut at = skip_name(message, HEADER).unwrap() + 4;
        let mut found = Vec::new();
        for _ in 0..count {
            at = skip_name(message, at).unwrap();
            let length = usize::from(u16_at(message, at + 8).unwrap());
            let data = &message[at + 10..at + 10 + length];
            match length {
                4 => found.push(IpAddr::from(<[u8; 4]>::try_from(data).unwrap())),
                16 => found.push(IpAddr::from(<[u8; 16]>::try_from(data).unwrap())),
                _ => {}
            }
            at += 10 + length;
        }
        (code_of(message), found)
    }

    #[test]
    fn a_name_is_read_in_lower_case_and_repeated_as_it_came() {
        let message = query(7, "Tasks.WEB", 28, Some(1232));
        let read = Query::read(&message).unwrap();
        assert_eq!((read.name.as_deref(), read.kind, read.id), (Some("tasks.web"), Kind::Aaaa, 7));
        assert_eq!(read.datagram_limit(), 1232);
        let mut out = Vec::new();
        read.answer(Code::Ok, 5, &[Record::Address("fd00::1".parse().unwrap())], 512, &mut out);
        assert_eq!(&out[HEADER..HEADER + 11], b"\x05Tasks\x03WEB\0");
        assert_eq!(addresses(&out), (0, vec!["fd00::1".parse().unwrap()]));
        assert!(read.is_answered_by(&out, 7) && !read.is_answered_by(&out, 8));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let message = query(1, "web", 1, None);
        let read = Query::read(&message).unwrap();
        let many: Vec<Record<'_>> = (0..=255).map(|last| Record::Address(IpAddr::from([10, 0, 0, last]))).collect();
        let mut out = Vec::new();
        read.answer(Code::Ok, 0, &many, read.datagram_limit(), &mut out);
        assert!(out.len() <= 512 && is_truncated(&out));
        assert_eq!(addresses(&out).1.len(), (512 - HEADER - 9) / 16);
        read.answer(Code::Ok, 0, &many, MAX_MESSAGE, &mut out);
        assert!(!is_truncated(&out));
        assert_eq!(addresses(&out).1.len(), 256);
    }

    #[test]
    fn what_is_no_query_is_not_answered_and_what_is_malformed_is_refused() {
        let mut response = query(3, "web", 1, None);
        response[2] |= FLAG_RESPONSE;
        assert_eq!(Query::read(&response), Err(Unread::Ignored));
        assert_eq!(Query::read(&[0; 11]), Err(Unread::Ignored));
        let mut two = query(3, "web", 1, None);
        two[5] = 2;
        assert_eq!(Query::read(&two), Err(Unread::Refused { id: 3, code: Code::Malformed }));
        let mut update = query(3, "web", 1, None);
        update[2] = 5 << 3;
        assert_eq!(Query::read(&update), Err(Unread::Refused { id: 3, code: Code::NotImplemented }));
        let mut pointer = query(3, "web", 1, None);
        pointer[HEADER] = 0xc0;
        assert_eq!(Query::read(&pointer), Err(Unread::Refused { id: 3, code: Code::Malformed }));
        assert_eq!(refusal(3, Code::Malformed)[..4], [0, 3, 0x80, 0x81]);
    }

    #[test]
    fn names_that_cannot_be_written_are_known() {
        assert!(is_writable("web.1.abc.net"));
        for name in ["", ".", "a..b", &"x".repeat(64), &["abcd"; 52].join(".")] {
            assert!(!is_writable(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(mut bytes in prop::collection::vec(any::<u8>(), 0..600), shape in any::<bool>()) {
            if shape && bytes.len() > 12 {
                // Past the header's checks.
                bytes[2] &= 1;
                bytes[4..10].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            }
            if let Ok(query) = Query::read(&bytes) {
                let mut out = Vec::new();
                let records = [Record::Address(IpAddr::from([10, 0, 0, 1])), Record::Pointer("a.b")];
                query.answer(Code::Ok, 0, &records, query.datagram_limit(), &mut out);
                prop_assert!(out.len() <= query.datagram_limit());
                prop_assert!(query.is_answered_by(&out, query.id));
                cut(&query, &out.clone(), &mut out);
                prop_assert!(is_truncated(&out));
            }
        }

        #[test]
        fn a_query_with_a_few_bytes_changed_is_read_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut_at in any::<prop::sample::Index>(),
        ) {
            let mut message = query(9, "www.web.shop", 1, Some(4096));
            for (place, byte) in changes {
                let place = place.index(message.len());
                message[place] = byte;
            }
            let _ = Query::read(&message);
            let _ = Query::read(&message[..cut_at.index(message.len())]);
        }

        #[test]
        fn any_name_reads_back(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..8)) {
            let name = labels.join(".");
            let message = query(1, &name, 1, None);
            prop_assert_eq!(Query::read(&message).unwrap().name, Some(name));
        }
    }
}
