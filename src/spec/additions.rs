//! What a service and its containers can be given that Docker's services have no word for: how they drain, what of the
//! host they may use, and what they wait for. Labels say it where the client speaks Docker's language; in flok's stack file it has keys.
//!
//! Read when a spec is taken in, never when it is looked at: a stored spec holds the values, not only their labels.

use super::quantity::{parse_duration, parse_size};
use super::stack::nearest;
use super::{ContainerSpec, DEPENDS_ON_LABEL, DependsOn, DeviceMapping, Labels, SCHEDULE_LABEL, Schedule, ServiceSpec};

/// One of them: its label and what it does to a container's spec.
struct Addition {
    label: &'static str,
    /// Said already, in other words than a label's.
    given: fn(&ContainerSpec) -> bool,
    read: fn(&mut ContainerSpec, &str) -> Result<(), String>,
    /// Takes over what an earlier spec says.
    keep: fn(&mut ContainerSpec, &ContainerSpec),
}

const ADDITIONS: [Addition; 7] = [
    Addition {
        label: "flok.drain",
        given: |spec| spec.drain.is_some(),
        read: |spec, text| {
            spec.drain = Some(parse_duration(text).map_err(|why| why.to_string())?);
            Ok(())
        },
        keep: |spec, old| spec.drain = old.drain,
    },
    Addition {
        label: "flok.privileged",
        given: |spec| spec.privileged,
        read: |spec, text| {
            spec.privileged = text.parse().map_err(|_| "it is neither true nor false".to_owned())?;
            Ok(())
        },
        keep: |spec, old| spec.privileged = old.privileged,
    },
    Addition {
        label: "flok.devices",
        given: |spec| !spec.devices.is_empty(),
        read: |spec, text| {
            spec.devices = words(text).map(DeviceMapping::parse).collect();
            Ok(())
        },
        keep: |spec, old| spec.devices.clone_from(&old.devices),
    },
    Addition {
        label: "flok.security-opt",
        // Docker's words for them go with a label's.
        given: |_| false,
        read: |spec, text| {
            let options: Vec<String> = words(text).map(str::to_owned).collect();
            let labelled = Security::read(&options).map_err(|option| format!("{option} is no security option"))?;
            // What is wrong with those that are there is said where the whole is judged.
            if let Ok(said) = Security::read(&spec.security_opt) {
                let no_new_privileges = said.no_new_privileges || labelled.no_new_privileges;
                spec.security_opt = Security { no_new_privileges, ..said.or(labelled) }.options();
            }
            Ok(())
        },
        // Clients that do not know the others say nothing of them; of new privileges all of them do.
        keep: |spec, old| {
            if let (Ok(said), Ok(old)) = (Security::read(&spec.security_opt), Security::read(&old.security_opt)) {
                spec.security_opt = said.or(old).options();
            }
        },
    },
    Addition {
        label: "flok.shm-size",
        given: |spec| spec.shm_size.is_some(),
        read: |spec, text| {
            spec.shm_size = Some(parse_size(text).map_err(|why| why.to_string())?);
            Ok(())
        },
        keep: |spec, old| spec.shm_size = old.shm_size,
    },
    Addition {
        label: "flok.ipc",
        given: |spec| spec.ipc.is_some(),
        read: |spec, text| {
            spec.ipc = Some(text.to_owned());
            Ok(())
        },
        keep: |spec, old| spec.ipc.clone_from(&old.ipc),
    },
    Addition {
        label: "flok.pid",
        given: |spec| spec.pid.is_some(),
        read: |spec, text| {
            spec.pid = Some(text.to_owned());
            Ok(())
        },
        keep: |spec, old| spec.pid.clone_from(&old.pid),
    },
];

/// The security option that every client of Docker's services knows.
pub const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

impl Addition {
    /// A label of the service goes before one of its containers.
    fn labelled<'a>(&self, service: &'a Labels, container: &'a Labels) -> Option<&'a String> {
        service.get(self.label).or_else(|| container.get(self.label))
    }

    fn is_labelled(&self, spec: &ServiceSpec) -> bool {
        self.labelled(&spec.labels, &spec.task.container.labels).is_some()
    }
}

/// A label of flok's own that means nothing is a misspelt one. Those of a schedule are read as one.
fn check_known(label: &str) -> Result<(), String> {
    let own = || ADDITIONS.iter().map(|addition| addition.label).chain([DEPENDS_ON_LABEL, SCHEDULE_LABEL]);
    let of_schedule = label.strip_prefix(SCHEDULE_LABEL).is_some_and(|rest| rest.starts_with('.'));
    if !label.starts_with("flok.") || of_schedule || own().any(|known| known == label) {
        return Ok(());
    }
    let hint = match nearest(label, own()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}", own().collect::<Vec<_>>().join(", ")),
    };
    Err(format!("label {label} means nothing to flok: {hint}"))
}

impl ServiceSpec {
    /// Takes in what its labels say, where it was not said otherwise. An error names the label, and why it cannot be so.
    pub fn read_additions(&mut self) -> Result<(), String> {
        self.labels.keys().chain(self.task.container.labels.keys()).try_for_each(|label| check_known(label))?;
        let container = &mut self.task.container;
        if let Ok(security) = Security::read(&container.security_opt) {
            container.security_opt = security.options();
        }
        for addition in ADDITIONS.iter().filter(|addition| !(addition.given)(container)).collect::<Vec<_>>() {
            let Some(text) = addition.labelled(&self.labels, &container.labels).cloned() else { continue };
            let read = (addition.read)(container, text.trim());
            read.map_err(|why| format!("label {}={text}: {why}", addition.label))?;
        }
        if self.depends_on.is_empty()
            && let Some(text) = self.depends_on_label()
        {
            let read = DependsOn::parse_label(text, &self.labels);
            self.depends_on = read.map_err(|why| format!("label {DEPENDS_ON_LABEL}={text}: {why}"))?;
        }
        if self.schedule.is_none() {
            self.schedule = Schedule::read_labels(self.schedule_labels())?;
        }
        Ok(())
    }

    /// The labels that a schedule is read from.
    fn schedule_labels(&self) -> &Labels {
        let container = &self.task.container.labels;
        let of_container = !self.labels.contains_key(SCHEDULE_LABEL) && container.contains_key(SCHEDULE_LABEL);
        if of_container { container } else { &self.labels }
    }

    fn has_schedule_label(&self) -> bool {
        self.schedule_labels().contains_key(SCHEDULE_LABEL)
    }

    fn depends_on_label(&self) -> Option<&String> {
        self.labels.get(DEPENDS_ON_LABEL).or_else(|| self.task.container.labels.get(DEPENDS_ON_LABEL))
    }

    /// An update in Docker's words says nothing of what it has no word for: that stays as it was in `stored`. What came
    /// by a label goes with its label.
    pub fn keep_additions(&mut self, stored: &ServiceSpec) {
        self.task.volume_policy = stored.task.volume_policy;
        if self.depends_on_label().is_none() && stored.depends_on_label().is_none() {
            self.depends_on.clone_from(&stored.depends_on);
        }
        if !self.has_schedule_label() && !stored.has_schedule_label() {
            self.schedule.clone_from(&stored.schedule);
        }
        let unlabelled = |addition: &&Addition| !addition.is_labelled(self) && !addition.is_labelled(stored);
        for addition in ADDITIONS.iter().filter(unlabelled).collect::<Vec<_>>() {
            (addition.keep)(&mut self.task.container, &stored.task.container);
        }
    }
}

impl DeviceMapping {
    /// `host[:container[:permissions]]`. What it gives is checked with the spec it stands in.
    pub fn parse(text: &str) -> DeviceMapping {
        let mut parts = text.splitn(3, ':');
        let host = parts.next().unwrap_or_default();
        DeviceMapping {
            host_path: host.to_owned(),
            container_path: parts.next().unwrap_or(host).to_owned(),
            permissions: parts.next().unwrap_or("rwm").to_owned(),
        }
    }
}

/// What a container's security options come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Security {
    pub no_new_privileges: bool,
    /// `None`: nothing is said of it, which means the default.
    pub seccomp: Option<Confinement>,
    /// The same. No profile is loaded for AppArmor, so there is none to leave out.
    pub apparmor: Option<Confinement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    Default,
    Unconfined,
}

const SECCOMP_DEFAULT: &str = "seccomp=builtin";
const SECCOMP_UNCONFINED: &str = "seccomp=unconfined";
const APPARMOR_DEFAULT: &str = "apparmor=docker-default";
const APPARMOR_UNCONFINED: &str = "apparmor=unconfined";

impl Security {
    /// The later of two that disagree counts. An error is the option that is not known.
    pub fn read(options: &[String]) -> Result<Security, String> {
        let mut security = Security::default();
        for option in options {
            match option.replacen(':', "=", 1).as_str() {
                NO_NEW_PRIVILEGES | "no-new-privileges=true" => security.no_new_privileges = true,
                "no-new-privileges=false" => security.no_new_privileges = false,
                SECCOMP_DEFAULT => security.seccomp = Some(Confinement::Default),
                SECCOMP_UNCONFINED => security.seccomp = Some(Confinement::Unconfined),
                APPARMOR_DEFAULT => security.apparmor = Some(Confinement::Default),
                APPARMOR_UNCONFINED => security.apparmor = Some(Confinement::Unconfined),
                _ => return Err(option.clone()),
            }
        }
        Ok(security)
    }

    /// The options that come to this, in the one order and spelling in which they are stored.
    pub fn options(self) -> Vec<String> {
        let seccomp = self.seccomp.map(|said| match said {
            Confinement::Default => SECCOMP_DEFAULT,
            Confinement::Unconfined => SECCOMP_UNCONFINED,
        });
        let apparmor = self.apparmor.map(|said| match said {
            Confinement::Default => APPARMOR_DEFAULT,
            Confinement::Unconfined => APPARMOR_UNCONFINED,
        });
        let no_new_privileges = self.no_new_privileges.then_some(NO_NEW_PRIVILEGES);
        [no_new_privileges, seccomp, apparmor].into_iter().flatten().map(str::to_owned).collect()
    }

    /// With what `other` says of that of which this says nothing.
    fn or(self, other: Security) -> Security {
        Security {
            no_new_privileges: self.no_new_privileges,
            seccomp: self.seccomp.or(other.seccomp),
            apparmor: self.apparmor.or(other.apparmor),
        }
    }
}

/// Separated by commas.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec::validate::tests::service;

    fn labelled(labels: &[(&str, &str)]) -> ServiceSpec {
        let mut spec = service();
        spec.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        spec
    }

    #[test]
    fn labels_say_what_docker_has_no_word_for() {
        let mut spec = labelled(&[
            ("flok.drain", "3s"),
            ("flok.privileged", "true"),
            ("flok.devices", "/dev/fuse, /dev/sda:/dev/xvda:r"),
            ("flok.security-opt", "seccomp=unconfined,no-new-privileges"),
            ("flok.shm-size", "128m"),
            ("flok.ipc", "host"),
            ("flok.pid", "host"),
        ]);
        spec.task.container.security_opt = vec![NO_NEW_PRIVILEGES.into()];
        spec.read_additions().unwrap();
        let container = &spec.task.container;
        assert_eq!((container.drain, container.privileged), (Some(Duration::from_secs(3)), true));
        let device = |host: &str, inside: &str, permissions: &str| DeviceMapping {
            host_path: host.into(),
            container_path: inside.into(),
            permissions: permissions.into(),
        };
        assert_eq!(container.devices, [device("/dev/fuse", "/dev/fuse", "rwm"), device("/dev/sda", "/dev/xvda", "r")]);
        assert_eq!(container.security_opt, [NO_NEW_PRIVILEGES, "seccomp=unconfined"]);
        assert_eq!(container.shm_size, Some(128 << 20));
        assert_eq!((container.ipc.as_deref(), container.pid.as_deref()), (Some("host"), Some("host")));
    }

    #[test]
    fn what_a_service_waits_for_comes_and_goes_with_its_label() {
        let mut stored = labelled(&[(DEPENDS_ON_LABEL, "db:healthy,migrate:completed")]);
        stored.read_additions().unwrap();
        let names: Vec<_> = stored.depends_on.iter().map(|one| one.service.as_str()).collect();
        assert_eq!(names, ["db", "migrate"]);
        let mut update = service();
        update.read_additions().unwrap();
        update.keep_additions(&stored);
        assert_eq!(update.depends_on, []);
        let why = labelled(&[(DEPENDS_ON_LABEL, "db:soon")]).read_additions().unwrap_err();
        assert!(why.starts_with("label flok.depends-on=db:soon: \"soon\""), "{why}");
    }

    #[test]
    fn a_schedule_comes_and_goes_with_its_labels_and_stays_where_a_file_gave_it() {
        let mut stored = labelled(&[("flok.schedule", "@daily"), ("flok.schedule.history", "3")]);
        stored.read_additions().unwrap();
        let history = |spec: &ServiceSpec| spec.schedule.as_ref().map(|schedule| schedule.history);
        assert_eq!(history(&stored), Some(3));
        let mut update = service();
        update.read_additions().unwrap();
        update.keep_additions(&stored);
        assert_eq!(history(&update), None);
        stored.labels.clear();
        update.keep_additions(&stored);
        assert_eq!(history(&update), Some(3));
        let mut by_container = service();
        by_container.task.container.labels.insert("flok.schedule".into(), "@daily".into());
        by_container.read_additions().unwrap();
        assert_eq!(by_container.schedule, Some(Schedule::new("@daily")));
    }

    #[test]
    fn a_label_that_cannot_be_read_is_named() {
        for (label, value) in [("flok.drain", "soon"), ("flok.privileged", "yes"), ("flok.shm-size", "big")] {
            let why = labelled(&[(label, value)]).read_additions().unwrap_err();
            assert!(why.starts_with(&format!("label {label}={value}: ")), "{why}");
        }
    }

    #[test]
    fn a_key_goes_before_a_label_and_a_services_label_before_its_containers() {
        let mut spec = labelled(&[("flok.shm-size", "1m")]);
        spec.task.container.labels.insert("flok.shm-size".into(), "2m".into());
        let mut with_key = spec.clone();
        with_key.task.container.shm_size = Some(7);
        spec.read_additions().unwrap();
        with_key.read_additions().unwrap();
        assert_eq!((spec.task.container.shm_size, with_key.task.container.shm_size), (Some(1 << 20), Some(7)));
    }

    #[test]
    fn an_update_in_dockers_words_keeps_what_has_none_and_drops_what_a_label_said() {
        let mut stored = labelled(&[("flok.pid", "host")]);
        stored.read_additions().unwrap();
        stored.task.container.privileged = true;
        stored.task.container.security_opt = vec![NO_NEW_PRIVILEGES.into(), "seccomp=unconfined".into()];
        let mut update = service();
        stored.depends_on = vec![DependsOn::parse("db:healthy").unwrap()];
        update.read_additions().unwrap();
        update.keep_additions(&stored);
        assert_eq!(update.depends_on, stored.depends_on);
        let container = &update.task.container;
        assert!(container.privileged);
        assert_eq!(container.pid, None);
        // Docker can say this one, and did not.
        assert_eq!(container.security_opt, ["seccomp=unconfined"]);
    }

    #[test]
    fn security_options_have_one_order_and_what_an_update_says_of_them_counts() {
        let stored = |options: &[&str]| {
            let mut spec = service();
            spec.task.container.security_opt = options.iter().map(|option| (*option).to_owned()).collect();
            spec.read_additions().unwrap();
            spec
        };
        let both = stored(&["seccomp:unconfined", "no-new-privileges:true"]);
        assert_eq!(both.task.container.security_opt, [NO_NEW_PRIVILEGES, "seccomp=unconfined"]);
        let updated = |options: &[&str]| {
            let mut update = stored(options);
            update.keep_additions(&both);
            update.task.container.security_opt
        };
        assert_eq!(updated(&[NO_NEW_PRIVILEGES]), both.task.container.security_opt);
        assert_eq!(updated(&["seccomp=builtin"]), ["seccomp=builtin"]);
        let why = labelled(&[("flok.security-opt", "label=disable")]).read_additions().unwrap_err();
        assert!(why.contains("label=disable is no security option"), "{why}");
    }

    #[test]
    fn a_misspelt_label_is_refused_with_the_one_that_was_meant() {
        let why = labelled(&[("flok.shmsize", "1m")]).read_additions().unwrap_err();
        assert_eq!(why, "label flok.shmsize means nothing to flok: did you mean flok.shm-size?");
        let mut by_container = labelled(&[]);
        by_container.task.container.labels.insert("flok.privilegd".into(), "true".into());
        assert!(by_container.read_additions().unwrap_err().contains("did you mean flok.privileged?"));
        labelled(&[("floks.own", "1"), ("com.example.flok.x", "1")]).read_additions().unwrap();
    }
}
