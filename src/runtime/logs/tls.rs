//! TLS to a syslog collector: who it must be, what it is shown, and its own words, which are read so that its end is seen.
//! Driven by the thread that sends, on a socket that blocks within the socket's limits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use super::forward::{has_words, hung_up};
use crate::spec::logging::SyslogTls;

/// Of a file with certificates or a key.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Pieces that are read of what a collector says before a message is sent; it has nothing to say that matters.
const MAX_WORDS: usize = 64;

/// A connection whose collector is who it says.
pub struct TlsWire(StreamOwned<ClientConnection, TcpStream>);

impl TlsWire {
    /// Reads the files, and shakes hands on `socket`.
    pub fn open(tls: &SyslogTls, mut socket: TcpStream) -> io::Result<TlsWire> {
        let host = tls.address.rsplit_once(':').map_or(tls.address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::new(config(tls)?), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it does not answer in TLS"),
                _ => error,
            })?;
        }
        Ok(TlsWire(StreamOwned::new(connection, socket)))
    }

    /// A message whole, or an error and the connection is of no more use.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.hear()?;
        self.0.write_all(message)?;
        self.0.flush()
    }

    /// Tickets, an alert, or that it has ended.
    fn hear(&mut self) -> io::Result<()> {
        let StreamOwned { conn, sock } = &mut self.0;
        for _ in 0..MAX_WORDS {
            if !has_words(sock)? {
                break;
            }
            conn.read_tls(sock)?;
            let state = conn.process_new_packets().map_err(io::Error::other)?;
            let mut said = vec![0; state.plaintext_bytes_to_read()];
            conn.reader().read_exact(&mut said)?;
            if state.peer_has_closed() {
                return Err(hung_up());
            }
        }
        Ok(())
    }
}

fn config(tls: &SyslogTls) -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = if tls.is_verified {
        builder.with_root_certificates(roots(tls.ca_file.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let Some((certificate, key)) = &tls.client_files else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(&file(key)?).map_err(|error| of_file(key, error))?;
    builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| of_file(certificate, error))
}

/// The node's own, and those of a file, as with Docker.
fn roots(ca_file: Option<&str>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| of_file(path, error))?;
        }
    }
    Ok(roots)
}

fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file(path)?).collect();
    let found = read.map_err(|error| of_file(path, error))?;
    if found.is_empty() { Err(of_file(path, "no certificate in PEM is in it")) } else { Ok(found) }
}

fn file(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    Ok(bytes)
}

fn of_file(path: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error}"))
}

/// Takes any certificate; that its key is the collector's is seen all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::path::Path;
    use std::time::Duration;

    use jiff::Timestamp;
    use rcgen::{CertificateParams, CertifiedKey, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ServerConfig, ServerConnection};

    use super::super::Forward;
    use super::super::forward::{DRAIN_WITHIN, Forwarder};
    use super::super::syslog::Line;
    use super::*;
    use crate::spec::logging::{Collector, SyslogAddress, SyslogFormat};

    /// An authority, and what it signed for the host 127.0.0.1, as collector or client.
    struct Authority(CertifiedKey);

    impl Authority {
        fn new() -> Authority {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key_pair = KeyPair::generate().unwrap();
            Authority(CertifiedKey { cert: params.self_signed(&key_pair).unwrap(), key_pair })
        }

        fn signed(&self) -> CertifiedKey {
            let key_pair = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            CertifiedKey { cert: params.signed_by(&key_pair, &self.0.cert, &self.0.key_pair).unwrap(), key_pair }
        }

        fn roots(&self) -> Arc<RootCertStore> {
            let mut roots = RootCertStore::empty();
            roots.add(self.0.cert.der().clone()).unwrap();
            Arc::new(roots)
        }
    }

    fn write(dir: &Path, name: &str, pem: &str) -> String {
        let path = dir.join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    }

    /// A collector that wants to see a certificate of `clients`, where there is one.
    struct Listener {
        tcp: TcpListener,
        config: Arc<ServerConfig>,
    }

    impl Listener {
        fn new(authority: &Authority, clients: Option<&Authority>) -> Listener {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            let builder = match clients {
                None => builder.with_no_client_auth(),
                Some(clients) => builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(clients.roots(), provider).build().unwrap(),
                ),
            };
            let own = authority.signed();
            let key = PrivateKeyDer::try_from(own.key_pair.serialize_der()).unwrap();
            let config = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
            Listener { tcp: TcpListener::bind("127.0.0.1:0").unwrap(), config: Arc::new(config) }
        }

        fn address(&self) -> String {
            self.tcp.local_addr().unwrap().to_string()
        }

        fn accept(&self) -> StreamOwned<ServerConnection, TcpStream> {
            let socket = self.tcp.accept().unwrap().0;
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            StreamOwned::new(ServerConnection::new(Arc::clone(&self.config)).unwrap(), socket)
        }
    }

    fn plain(listener: &Listener) -> SyslogTls {
        SyslogTls { address: listener.address(), ca_file: None, client_files: None, is_verified: true }
    }

    fn forwarder(tls: SyslogTls, format: SyslogFormat) -> Forwarder {
        let forward = Forward {
            collector: Collector::Syslog { address: SyslogAddress::Tls(tls), facility: 3, format },
            tag: "web".into(),
            hostname: "n1".into(),
            buffer_bytes: 1 << 20,
            container_id: "c".into(),
            container_name: "web.1".into(),
            image_name: "i".into(),
        };
        Forwarder::start(forward, BTreeMap::new()).unwrap()
    }

    fn line(text: &str) -> Line {
        Line { stderr: false, time: Timestamp::now(), text: text.into(), partial: false }
    }

    fn open(tls: &SyslogTls) -> io::Result<TlsWire> {
        TlsWire::open(tls, TcpStream::connect(&tls.address)?)
    }

    fn next(reader: &mut impl BufRead) -> String {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        text
    }

    #[test]
    fn a_collector_that_is_trusted_gets_lines_in_frames_and_sees_who_sends() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, clients) = (Authority::new(), Authority::new());
        let listener = Listener::new(&authority, Some(&clients));
        let own = clients.signed();
        let files =
            (write(dir.path(), "cert", &own.cert.pem()), write(dir.path(), "key", &own.key_pair.serialize_pem()));
        let ca_file = Some(write(dir.path(), "ca", &authority.0.cert.pem()));
        let forwarder =
            forwarder(SyslogTls { ca_file, client_files: Some(files), ..plain(&listener) }, SyslogFormat::Rfc5424);
        forwarder.push(line("one"));
        let mut lines = BufReader::new(listener.accept());
        let text = next(&mut lines);
        let (length, message) = text.split_once(' ').unwrap();
        assert!(message.starts_with("<30>1 ") && message.ends_with(" web - one\n"), "{text}");
        assert_eq!(length.parse(), Ok(message.len()));
        assert!(lines.get_ref().conn.peer_certificates().is_some());
        assert_eq!(forwarder.finish(DRAIN_WITHIN), None);
    }

    #[test]
    fn a_collector_that_was_started_anew_gets_the_next_line() {
        let authority = Authority::new();
        let listener = Listener::new(&authority, None);
        let forwarder = forwarder(SyslogTls { is_verified: false, ..plain(&listener) }, SyslogFormat::Rfc3164);
        for text in ["one", "two"] {
            forwarder.push(line(text));
            let mut lines = BufReader::new(listener.accept());
            let read = next(&mut lines);
            assert!(read.starts_with("<30>") && read.ends_with(&format!(": {text}\n")), "{read}");
            // Its end, in TLS and below, is seen before the next line.
            lines.get_mut().conn.send_close_notify();
            lines.get_mut().flush().unwrap();
        }
        assert_eq!(forwarder.finish(DRAIN_WITHIN), None);
    }

    #[test]
    fn a_collector_that_is_not_trusted_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let listener = Listener::new(&authority, None);
        let elsewhere = SyslogTls { ca_file: Some("/nowhere/ca".into()), ..plain(&listener) };
        let empty = SyslogTls { ca_file: Some(write(dir.path(), "empty", "")), ..plain(&listener) };
        let refusing = Listener::new(&authority, None);
        let other = Authority::new().0.cert.pem();
        let stranger = SyslogTls { ca_file: Some(write(dir.path(), "ca", &other)), ..plain(&refusing) };
        for (tls, reason) in [(elsewhere, "/nowhere/ca: No such file"), (empty, "no certificate in PEM is in it")] {
            let error = open(&tls).err().expect(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let refused = std::thread::spawn(move || {
            let mut text = String::new();
            refusing.accept().read_to_string(&mut text).map(|_| text)
        });
        let error = open(&stranger).err().unwrap().to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
        assert!(refused.join().unwrap().is_err());
    }
}
