//! `--mount` as Docker writes it.

use bollard::models::*;

use super::edit::signed;
use crate::cli::key_value;
use crate::spec::quantity::parse_size;

const KEYS: &str = "type, source, target, readonly, bind-propagation, bind-recursive, bind-nonrecursive, bind-create-src, volume-driver, \
    volume-opt, volume-nocopy, volume-subpath, volume-label, tmpfs-size, tmpfs-mode";

/// `type=volume,source=data,target=/data[,readonly]`, with type bind, volume or tmpfs. A field that holds a comma stands in
/// double quotes, as in `"volume-opt=o=addr=10.0.0.5,ro"`.
pub fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, "true"));
        set(&mut mount, key, value)?;
    }
    check_kind(&mount)?;
    check_recursion(&mount)?;
    match &mount.target {
        Some(target) if target.starts_with('/') => Ok(mount),
        Some(target) => Err(format!("the target {target:?} must be an absolute path")),
        None => Err("there is no target".into()),
    }
}

fn set(mount: &mut Mount, key: &str, value: &str) -> Result<(), String> {
    match key {
        "type" => mount.typ = Some(kind(value)?),
        "source" | "src" => mount.source = Some(value.into()),
        "target" | "dst" | "destination" => mount.target = Some(value.into()),
        "readonly" | "ro" => mount.read_only = Some(flag(key, value)?),
        "bind-propagation" => {
            let propagation =
                value.parse().map_err(|_| format!("{value:?} is no propagation: write for example rslave"))?;
            mount.bind_options.get_or_insert_default().propagation = Some(propagation);
        }
        "bind-nonrecursive" => mount.bind_options.get_or_insert_default().non_recursive = Some(flag(key, value)?),
        "bind-recursive" => recursive(mount.bind_options.get_or_insert_default(), value)?,
        "bind-create-src" => mount.bind_options.get_or_insert_default().create_mountpoint = Some(flag(key, value)?),
        "volume-driver" => {
            mount.volume_options.get_or_insert_default().driver_config.get_or_insert_default().name =
                Some(value.into());
        }
        "volume-opt" => {
            let (key, value) = key_value(value)?;
            let config = mount.volume_options.get_or_insert_default().driver_config.get_or_insert_default();
            config.options.get_or_insert_default().insert(key, value);
        }
        "volume-nocopy" => mount.volume_options.get_or_insert_default().no_copy = Some(flag(key, value)?),
        "volume-subpath" => mount.volume_options.get_or_insert_default().subpath = Some(value.into()),
        "volume-label" => {
            let (key, value) = key_value(value)?;
            mount.volume_options.get_or_insert_default().labels.get_or_insert_default().insert(key, value);
        }
        "tmpfs-size" => {
            let bytes = parse_size(value).map_err(|error| error.to_string())?;
            mount.tmpfs_options.get_or_insert_default().size_bytes = Some(signed(bytes));
        }
        "tmpfs-mode" => {
            let mode = i64::from_str_radix(value, 8).map_err(|_| format!("the mode {value:?} is not octal"))?;
            mount.tmpfs_options.get_or_insert_default().mode = Some(mode);
        }
        other => return Err(format!("{other:?} is none of {KEYS}")),
    }
    Ok(())
}

/// What becomes of what is mounted below the source.
fn recursive(bind: &mut MountBindOptions, value: &str) -> Result<(), String> {
    match value {
        "enabled" => {}
        "disabled" => bind.non_recursive = Some(true),
        "writable" => bind.read_only_non_recursive = Some(true),
        "readonly" => bind.read_only_force_recursive = Some(true),
        other => return Err(format!("bind-recursive: {other:?} is none of enabled, disabled, writable, readonly")),
    }
    Ok(())
}

/// As Docker's command asks for it, so that nobody takes a mount for more read-only than it is.
fn check_recursion(mount: &Mount) -> Result<(), String> {
    let bind = mount.bind_options.clone().unwrap_or_default();
    let is_forced = bind.read_only_force_recursive == Some(true);
    let word = if is_forced { "readonly" } else { "writable" };
    if (is_forced || bind.read_only_non_recursive == Some(true)) && mount.read_only != Some(true) {
        return Err(format!("bind-recursive={word} needs readonly, too"));
    }
    if is_forced && bind.propagation != Some(MountBindOptionsPropagationEnum::RPRIVATE) {
        return Err("bind-recursive=readonly needs bind-propagation=rprivate, too".into());
    }
    Ok(())
}

fn kind(value: &str) -> Result<MountType, String> {
    match value {
        "bind" => Ok(MountType::BIND),
        "volume" => Ok(MountType::VOLUME),
        "tmpfs" => Ok(MountType::TMPFS),
        "cluster" | "npipe" | "image" => {
            Err(format!("mounts of type {value} are not there yet: write bind, volume or tmpfs"))
        }
        other => Err(format!("{other:?} is none of bind, volume, tmpfs")),
    }
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{key}: {other:?} is neither true nor false")),
    }
}

/// Options of one type do nothing for another.
fn check_kind(mount: &Mount) -> Result<(), String> {
    let kinds = [
        (MountType::BIND, "bind-", mount.bind_options.is_some()),
        (MountType::VOLUME, "volume-", mount.volume_options.is_some()),
        (MountType::TMPFS, "tmpfs-", mount.tmpfs_options.is_some()),
    ];
    let strange = kinds.iter().find(|(kind, _, given)| *given && Some(*kind) != mount.typ);
    strange.map_or(Ok(()), |(_, prefix, _)| Err(format!("options {prefix}... do not fit a mount of another type")))
}

/// Fields between commas, of which those in double quotes may hold commas: one line of CSV.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("it begins with one");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if quoted { Err("a double quote is not closed".into()) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_read() {
        let read = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((read.typ, read.read_only), (Some(MountType::BIND), Some(true)));
        assert_eq!(read.bind_options.unwrap().propagation.unwrap().to_string(), "rslave");
        assert_eq!(mount("source=data,target=/d").unwrap().typ, Some(MountType::VOLUME));
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(1 << 20), Some(0o700)));
        for text in [
            "",
            "source=a",
            "target=rel",
            "type=x,target=/a",
            "what=1,target=/a",
            "target=/a,readonly=maybe",
            "type=tmpfs,target=/a,tmpfs-mode=9",
            "type=tmpfs,target=/a,volume-nocopy",
            "target=/a,\"volume-opt=o=a",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
        assert!(mount("type=cluster,target=/a").unwrap_err().contains("not there yet"));
    }

    #[test]
    fn what_lies_below_a_bind_is_said_in_one_word() {
        let bind =
            |rest: &str| mount(&format!("type=bind,src=/a,dst=/b,{rest}")).map(|mount| mount.bind_options.unwrap());
        assert_eq!(bind("bind-recursive=enabled").unwrap(), MountBindOptions::default());
        assert_eq!(bind("bind-recursive=disabled").unwrap().non_recursive, Some(true));
        assert_eq!(bind("readonly,bind-recursive=writable").unwrap().read_only_non_recursive, Some(true));
        let forced = bind("readonly,bind-propagation=rprivate,bind-recursive=readonly").unwrap();
        assert_eq!(forced.read_only_force_recursive, Some(true));
        for (wrong, said) in [
            ("bind-recursive=maybe", "none of enabled"),
            ("bind-recursive=writable", "needs readonly"),
            ("bind-recursive=readonly,bind-propagation=rprivate", "needs readonly"),
            ("readonly,bind-recursive=readonly", "bind-propagation=rprivate"),
        ] {
            let error = bind(wrong).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn mounts_of_any_words_are_read_or_refused() {
        let words = [
            "type=",
            "bind",
            "volume",
            "tmpfs",
            ",",
            "src=",
            "dst=",
            "/a",
            "\"",
            "=",
            "readonly",
            "tmpfs-mode=",
            "tmpfs-size=",
            "volume-opt=",
            "volume-label=",
            "bind-propagation=",
            "bind-recursive=",
            "-1",
            "99999999999999999999",
            "é",
            "777",
        ];
        bolero::check!().with_iterations(2000).for_each(|bytes: &[u8]| {
            let _ = mount(&String::from_utf8_lossy(bytes));
            let text: String = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]).collect();
            let _ = mount(&text);
        });
    }

    #[test]
    fn a_volumes_options_read_with_their_commas() {
        let text = "source=db,target=/d,volume-nocopy,volume-subpath=a/b,volume-label=x=y,volume-driver=local,\
            volume-opt=type=nfs,volume-opt=device=10.0.0.5:/x,\"volume-opt=o=addr=10.0.0.5,ro\"";
        let options = mount(text).unwrap().volume_options.unwrap();
        assert_eq!((options.no_copy, options.subpath.as_deref()), (Some(true), Some("a/b")));
        assert_eq!(options.labels.unwrap()["x"], "y");
        let config = options.driver_config.unwrap();
        assert_eq!(config.name.as_deref(), Some("local"));
        let given = config.options.unwrap();
        assert_eq!((given["type"].as_str(), given["device"].as_str()), ("nfs", "10.0.0.5:/x"));
        assert_eq!(given["o"], "addr=10.0.0.5,ro");
    }
}
