//! The images of the tests, made once and kept beside the build.

use std::path::PathBuf;
use std::process::Command;

/// The archive of one of `docker/images.sh`'s images.
pub fn archive(name: &str) -> PathBuf {
    let folder = std::env::var_os("FLOK_E2E_IMAGES")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("images"), PathBuf::from);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/images.sh");
    let output = Command::new(script).arg(&folder).arg(name).output().unwrap();
    assert!(output.status.success(), "images.sh {name}: {}", String::from_utf8_lossy(&output.stderr));
    folder.join(format!("{name}.tar"))
}
