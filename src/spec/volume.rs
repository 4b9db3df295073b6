//! What a local volume is when it is not a directory of the node: Docker's driver options `type`, `o` and `device`, as
//! `mount -t TYPE -o O DEVICE` has them.

use std::fmt;

use super::Labels;

/// The one driver of volumes that there is.
pub const LOCAL_DRIVER: &str = "local";

const OPTIONS: [&str; 3] = ["type", "o", "device"];
const SIZE: &str = "size";
/// Mount options whose values are nobody else's business.
const SECRETS: [&str; 5] = ["password", "password2", "passwd", "pass", "secret"];
const MASK: &str = "********";

/// A file system that is mounted for the tasks that use a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// `nfs`, `cifs`, `tmpfs`, `none` for a bind, whatever the node's kernel has.
    pub kind: String,
    /// `10.0.0.5:/x`, `//server/share`, a path of the node, any word for a tmpfs.
    pub device: String,
    /// Separated by commas; passwords in clear.
    pub options: String,
}

/// Without its passwords.
impl fmt::Debug for VolumeMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount -t {} -o {} {}", self.kind, masked(&self.options), self.device)
    }
}

impl VolumeMount {
    /// From a volume's driver options; `None` where there are none.
    pub fn read(options: &Labels) -> Result<Option<VolumeMount>, String> {
        check_size(options)?;
        VolumeMount::read_unbounded(options)
    }

    /// The same, whether or not the volume is to have a size.
    pub fn read_unbounded(options: &Labels) -> Result<Option<VolumeMount>, String> {
        if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str()) && *key != SIZE) {
            return Err(format!("invalid option: {unknown:?}: the driver local has {}", OPTIONS.join(", ")));
        }
        let given = |key: &str| options.get(key).filter(|value| !value.is_empty());
        if OPTIONS.iter().all(|key| given(key).is_none()) {
            return Ok(None);
        }
        let required = |key: &str| given(key).cloned().ok_or_else(|| format!("missing required option: {key:?}"));
        let (kind, device) = (required("type")?, required("device")?);
        Ok(Some(VolumeMount { kind, device, options: given("o").cloned().unwrap_or_default() }))
    }
}

/// Whether what is written to a volume with these options stays on the node: a directory or disk of its own does, a server's
/// or the memory's does not.
pub fn is_of_node(options: &Labels) -> bool {
    options
        .get("device")
        .is_none_or(|device| device.is_empty() || (device.starts_with('/') && !device.starts_with("//")))
}

/// Mount options with passwords made unreadable.
pub fn masked(options: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((key, _)) if SECRETS.contains(&key.trim().to_ascii_lowercase().as_str()) => format!("{key}={MASK}"),
        _ => part.to_owned(),
    };
    options.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// Driver options as they are shown.
pub fn shown(options: &Labels) -> Labels {
    let value = |key: &str, value: &str| if key == "o" { masked(value) } else { value.to_owned() };
    options.iter().map(|(key, text)| (key.clone(), value(key, text))).collect()
}

/// Says why a volume with these options has no size of its own, should it be to have one.
pub fn check_size(options: &Labels) -> Result<(), String> {
    if options.contains_key(SIZE) {
        return Err("volume option size needs disk quotas, which are not there yet: a tmpfs has o=size=64m".into());
    }
    Ok(())
}

/// Says what there is where `driver` is not.
pub fn check_driver(driver: Option<&str>) -> Result<(), String> {
    match driver {
        None | Some("" | LOCAL_DRIVER) => Ok(()),
        Some(other) => Err(format!(
            "volume driver {other:?} is not there: use {LOCAL_DRIVER}, which mounts nfs, cifs and others by its options"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn dockers_options_name_a_file_system() {
        let read = VolumeMount::read(&options(&[("type", "nfs"), ("device", "10.0.0.5:/x"), ("o", "ro,vers=4")]));
        let read = read.unwrap().unwrap();
        assert_eq!(
            (read.kind.as_str(), read.device.as_str(), read.options.as_str()),
            ("nfs", "10.0.0.5:/x", "ro,vers=4")
        );
        assert_eq!(VolumeMount::read(&Labels::new()), Ok(None));
        let refused = |pairs: &[(&str, &str)]| VolumeMount::read(&options(pairs)).unwrap_err();
        assert_eq!(refused(&[("device", "/x")]), "missing required option: \"type\"");
        assert_eq!(refused(&[("type", "nfs"), ("device", "")]), "missing required option: \"device\"");
        assert_eq!(refused(&[("o", "bind")]), "missing required option: \"type\"");
        assert!(refused(&[("mountpoint", "/x")]).starts_with("invalid option: \"mountpoint\""));
        assert!(refused(&[("size", "10m")]).contains("o=size="));
        let with_size = options(&[("size", "10m")]);
        assert_eq!(VolumeMount::read_unbounded(&with_size), Ok(None));
        assert!(VolumeMount::read_unbounded(&options(&[("size", "10m"), ("typ", "nfs")])).is_err());
    }

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        assert_eq!(masked("username=u,password=p=q,rw"), "username=u,password=********,rw");
        assert_eq!(masked("PASS=a, password2=b,ro"), "PASS=********, password2=********,ro");
        let mount = VolumeMount { kind: "cifs".into(), device: "//s/x".into(), options: "password=hush".into() };
        assert!(!format!("{mount:?}").contains("hush"));
        let given = options(&[("o", "password=hush"), ("device", "//s/x")]);
        assert_eq!(shown(&given), options(&[("o", "password=********"), ("device", "//s/x")]));
    }

    #[test]
    fn a_servers_data_is_not_the_nodes() {
        let of = |device: &str| is_of_node(&options(&[("device", device)]));
        assert!(is_of_node(&Labels::new()) && of("/srv/data") && of("/dev/sdb1"));
        assert!(!of("10.0.0.5:/x") && !of(":/x") && !of("//server/share") && !of("tmpfs"));
    }

    #[test]
    fn another_driver_is_refused_by_name() {
        assert!(check_driver(Some("rexray")).unwrap_err().starts_with("volume driver \"rexray\" is not there"));
        assert!([None, Some(""), Some("local")].into_iter().all(|driver| check_driver(driver).is_ok()));
    }
}
