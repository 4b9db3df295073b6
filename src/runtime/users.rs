//! Users: `name|uid[:group|gid]`, looked up in the image's `/etc/passwd` and `/etc/group` as Docker does. The lookup is pure;
//! the two files are read once for each image.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::oci::ResolvedUser;

/// Largest of the two files that is read.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The two files of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// The accounts of the images used lately, by ChainID.
#[derive(Default)]
pub struct Users {
    known: Mutex<BTreeMap<String, Arc<Accounts>>>,
}

impl Users {
    pub fn get(&self, chain_id: &str) -> Option<Arc<Accounts>> {
        self.known.lock().expect("nothing panics while it is held").get(chain_id).cloned()
    }

    pub fn remember(&self, chain_id: &str, accounts: Arc<Accounts>) {
        const MAX: usize = 256;
        let mut known = self.known.lock().expect("nothing panics while it is held");
        if known.len() >= MAX {
            known.clear();
        }
        known.insert(chain_id.to_owned(), accounts);
    }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl Accounts {
    /// `groups`: further groups of the spec, by name or number. The error names what is missing.
    pub fn resolve(&self, user: &str, groups: &[String]) -> Result<ResolvedUser, String> {
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        let line = self.passwd_line(if user.is_empty() { "0" } else { user });
        let (uid, mut gid) = match (&line, user.parse()) {
            (Some(line), _) => (line.uid, line.gid),
            (None, Ok(uid)) => (uid, 0),
            (None, Err(_)) if user.is_empty() => (0, 0),
            (None, Err(_)) => return Err("the image's /etc/passwd has no such user".to_owned()),
        };
        let mut additional_gids = Vec::new();
        if group.is_empty() {
            if let Some(line) = &line {
                additional_gids = self.groups_of(line.name);
            }
        } else {
            gid = self.gid(group)?;
        }
        for group in groups {
            additional_gids.push(self.gid(group)?);
        }
        // The primary group too: without it, a file that denies the group would open to a process that has changed its
        // own (CVE-2022-36109).
        additional_gids.insert(0, gid);
        let mut seen = std::collections::BTreeSet::new();
        additional_gids.retain(|gid| seen.insert(*gid));
        Ok(ResolvedUser { uid, gid, additional_gids })
    }

    fn passwd_line(&self, user: &str) -> Option<PasswdLine<'_>> {
        let uid: Option<u32> = user.parse().ok();
        let lines = self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(PasswdLine { name, uid, gid })
        });
        lines.into_iter().find(|line| line.name == user || Some(line.uid) == uid)
    }

    fn group_lines(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }

    fn gid(&self, group: &str) -> Result<u32, String> {
        let number: Option<u32> = group.parse().ok();
        let found = self.group_lines().find(|(name, gid, _)| *name == group || Some(*gid) == number);
        found.map(|(_, gid, _)| gid).or(number).ok_or_else(|| format!("the image's /etc/group has no group {group:?}"))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        self.group_lines()
            .filter(|(_, _, members)| members.split(',').any(|name| name == user))
            .map(|line| line.1)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/:/bin/false\nbroken\n".into(),
            group: "root:x:0:root\nredis:x:998:\ndisk:x:6:root,redis\ntape:x:7:other,redis\n".into(),
        }
    }

    fn resolve(user: &str) -> Result<(u32, u32, Vec<u32>), String> {
        accounts().resolve(user, &[]).map(|user| (user.uid, user.gid, user.additional_gids))
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        assert_eq!(resolve("redis"), Ok((999, 998, vec![998, 6, 7])));
        assert_eq!(resolve("999"), Ok((999, 998, vec![998, 6, 7])));
        assert_eq!(resolve(""), Ok((0, 0, vec![0, 6])));
    }

    #[test]
    fn a_named_group_replaces_the_users_own() {
        assert_eq!(resolve("redis:disk"), Ok((999, 6, vec![6])));
        assert_eq!(resolve("redis:4242"), Ok((999, 4242, vec![4242])));
        assert_eq!(resolve("1234:4242"), Ok((1234, 4242, vec![4242])));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_does() {
        assert_eq!(resolve("1234"), Ok((1234, 0, vec![0])));
        assert!(resolve("nobody").is_err());
        assert!(resolve("redis:nobody").unwrap_err().contains("nobody"));
    }

    #[test]
    fn an_image_without_accounts_runs_as_root() {
        let root = ResolvedUser { uid: 0, gid: 0, additional_gids: vec![0] };
        assert_eq!(Accounts::default().resolve("", &[]).unwrap(), root);
    }

    #[test]
    fn further_groups_come_once() {
        let user = accounts().resolve("redis", &["disk".into(), "77".into()]).unwrap();
        assert_eq!(user.additional_gids, vec![998, 6, 7, 77]);
    }
}
