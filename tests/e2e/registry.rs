//! Registries beside the hosts: over plain HTTP and open to all, or with a certificate of a private CA and an account.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::images;
use super::lab::{Lab, eventually, run};

/// Where the one over plain HTTP listens: the bridge's own address.
pub const ADDR: &str = "10.99.0.254:5000";
/// Where the other one does.
pub const PRIVATE_ADDR: &str = "10.99.0.254:5443";

/// The private one's user and password, and how htpasswd has them.
pub const ACCOUNT: (&str, &str) = ("user", "secret");
const HTPASSWD: &str = "user:$2b$05$ZA5mzINNeRigXa0R3Et0k.Pw36eDu.UcPOaLW8l/c0QBdgNpRANgW\n";

pub struct Registry<'a> {
    lab: &'a Lab,
    addr: &'static str,
    process: Child,
}

impl Registry<'_> {
    pub fn beside(lab: &Lab) -> Registry<'_> {
        Registry::start(lab, ADDR, "", "")
    }

    /// Over plain HTTP, and for the account alone.
    #[allow(dead_code, reason = "the tests of the API use it")]
    pub fn with_account(lab: &Lab) -> Registry<'_> {
        let dir = dir_of(lab, ADDR);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("htpasswd");
        fs::write(&path, HTPASSWD).unwrap();
        Registry::start(lab, ADDR, "", &format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", path.display()))
    }

    /// The CA is a file of its own beside it: [`Self::make_ca`], before.
    pub fn private(lab: &Lab) -> Registry<'_> {
        let dir = dir_of(lab, PRIVATE_ADDR);
        let path = |name: &str| dir.join(name).display().to_string();
        fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let tls = format!(", tls: {{ certificate: {}, key: {} }}", path("tls.pem"), path("tls.key"));
        let auth = format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", path("htpasswd"));
        Registry::start(lab, PRIVATE_ADDR, &tls, &auth)
    }

    /// Makes the private registry's CA and certificate; the CA's file.
    pub fn make_ca(lab: &Lab) -> PathBuf {
        let dir = dir_of(lab, PRIVATE_ADDR);
        fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        fs::write(path("ext"), "subjectAltName=IP:10.99.0.254").unwrap();
        let script = format!(
            "cd {} && openssl req -newkey rsa:2048 -nodes -x509 -days 2 -subj '/CN=test CA' -keyout ca.key -out ca.pem && \
             openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout tls.key -out tls.csr && \
             openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.pem",
            dir.display()
        );
        run("bash", &["-c", &script]);
        dir.join("ca.pem")
    }

    fn start<'a>(lab: &'a Lab, addr: &'static str, tls: &str, auth: &str) -> Registry<'a> {
        let dir = dir_of(lab, addr);
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: warn }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {addr}{tls} }}\n{auth}",
            dir.join("data").display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = lab.beside("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap();
        let scheme = if tls.is_empty() { "http" } else { "https" };
        eventually("the registry to answer", Duration::from_secs(20), || {
            let url = format!("{scheme}://{addr}/v2/");
            let output = lab.beside("curl").args(["-sS", "-k", "--max-time", "2", &url]).output().unwrap();
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
        Registry { lab, addr, process }
    }

    /// The full name of a repository here.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.addr)
    }

    pub fn push(&self, image: &str, repository: &str) {
        let from = format!("oci-archive:{}", images::archive(image).display());
        let to = format!("docker://{}", self.name(repository));
        let account = format!("--dest-creds={}:{}", ACCOUNT.0, ACCOUNT.1);
        let mut args = vec!["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"];
        args.extend((self.addr == PRIVATE_ADDR).then_some(account.as_str()));
        args.extend([from.as_str(), &to]);
        let output = self.lab.beside("skopeo").args(args).output().unwrap();
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn dir_of(lab: &Lab, addr: &str) -> PathBuf {
    lab.dir().join(format!("registry-{}", addr.rsplit(':').next().unwrap_or_default()))
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
