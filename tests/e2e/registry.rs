//! A registry beside the hosts, over plain HTTP.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::images;
use super::lab::{Lab, eventually};

/// Where it listens: the bridge's own address.
pub const ADDR: &str = "10.99.0.254:5000";

pub struct Registry<'a> {
    lab: &'a Lab,
    process: Child,
}

impl Registry<'_> {
    pub fn beside(lab: &Lab) -> Registry<'_> {
        let dir = lab.dir().join("registry");
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: warn }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp:\n  addr: {ADDR}\n",
            dir.join("data").display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = lab.beside("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap();
        eventually("the registry to answer", Duration::from_secs(20), || {
            let url = format!("http://{ADDR}/v2/");
            let output = lab.beside("curl").args(["-fsS", "--max-time", "2", &url]).output().unwrap();
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
        Registry { lab, process }
    }

    /// The full name of a repository here.
    pub fn name(&self, repository: &str) -> String {
        format!("{ADDR}/{repository}")
    }

    pub fn push(&self, image: &str, repository: &str) {
        let from = format!("oci-archive:{}", images::archive(image).display());
        let to = format!("docker://{}", self.name(repository));
        let args = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", &from, &to];
        let output = self.lab.beside("skopeo").args(args).output().unwrap();
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
