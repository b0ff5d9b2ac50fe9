//! Encryption of a connection to PostgreSQL: from what a URL asks for to a connector.
//!
//! Promises what libpq's `sslmode` promises, and never less: `require` encrypts without asking who
//! answers, `verify-ca` wants a chain to a certificate that is trusted, `verify-full` wants the host's
//! name in it too. In every mode the server proves that it holds the key of the certificate it shows,
//! which is what SCRAM's channel binding rests on. Differences from libpq, all on the careful side: a
//! root certificate that was named is used with `prefer` too, where a server that fails the check is
//! refused instead of being talked to in plain text; a host's name is looked for in the certificate's
//! alternative names only.
//!
//! Refuses to know URLs, environment variables and the protocol of PostgreSQL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature,
    verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// Makes encrypted streams for `tokio_postgres`; cheap to clone. It fits every [`Tls`], since with
/// `sslmode=disable` and on Unix sockets `tokio_postgres` never asks it for a stream.
pub type Connector = MakeRustlsConnect;

/// What `sslmode` says, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Plain text.
    Disable,
    /// Encrypted if the server can, else plain text.
    Prefer,
    /// Encrypted, whoever answers.
    Require,
    /// Encrypted, with a chain to a trusted certificate.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for the host that was asked for.
    VerifyFull,
}

/// Whose signatures are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Nobody was named.
    Unnamed,
    /// The certificates in a PEM file.
    File(PathBuf),
    /// What the operating system trusts.
    System,
}

/// The PEM files with which the client shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, followed by those between it and its root.
    pub certificate: PathBuf,
    /// Its key, not encrypted, readable by its owner alone.
    pub key: PathBuf,
}

/// How a connection is to be encrypted. No file is read before [`Tls::connector`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// How much is asked of the server.
    pub mode: Mode,
    /// Who vouches for the server.
    pub roots: Roots,
    /// Who we are, for servers that ask.
    pub identity: Option<Identity>,
}

impl Tls {
    /// Plain text.
    #[must_use]
    pub fn disabled() -> Self {
        Self {
            mode: Mode::Disable,
            roots: Roots::Unnamed,
            identity: None,
        }
    }

    /// Reads the files and makes a connector. Call it again to take notice of changed files.
    ///
    /// # Errors
    /// A sentence that names the file which is missing, unreadable or not what it should be.
    pub fn connector(&self) -> Result<Connector, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.identity {
            Some(identity) if self.mode != Mode::Disable => {
                let certificates = certificates(&identity.certificate, "sslcert")?;
                builder
                    .with_client_auth_cert(certificates, key(&identity.key)?)
                    .map_err(|error| {
                        format!(
                            "sslcert '{}' and sslkey '{}' cannot be used together: {error}",
                            identity.certificate.display(),
                            identity.key.display(),
                        )
                    })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// What is asked of a certificate.
    fn check(&self) -> Check {
        match (self.mode, &self.roots) {
            (Mode::Disable, _) | (Mode::Prefer | Mode::Require, Roots::Unnamed) => Check::Nothing,
            (Mode::Prefer | Mode::Require | Mode::VerifyCa, _) => Check::Chain,
            (Mode::VerifyFull, _) => Check::ChainAndName,
        }
    }

    fn verifier(&self, provider: &CryptoProvider) -> Result<Verifier, String> {
        let mut roots = RootCertStore::empty();
        let mut pinned = Vec::new();
        let check = self.check();
        if check != Check::Nothing {
            match &self.roots {
                Roots::File(path) => {
                    pinned = certificates(path, "sslrootcert")?;
                    for certificate in &pinned {
                        roots.add(certificate.clone()).map_err(|error| {
                            format!(
                                "sslrootcert '{}' holds a certificate that cannot be used: {error}",
                                path.display()
                            )
                        })?;
                    }
                }
                Roots::Unnamed | Roots::System => {
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                    if roots.is_empty() {
                        return Err(
                            "this machine has no store of trusted certificates; install one \
                             (the package is often called ca-certificates), or name a file with \
                             sslrootcert=FILE"
                                .into(),
                        );
                    }
                }
            }
        }
        Ok(Verifier {
            check,
            roots,
            pinned,
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

/// How far a server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Judges the certificate that a server shows.
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// The certificates of a root file as they stand there. A server that uses one of them itself is
    /// trusted, as with OpenSSL: "self-signed" is often done in this way.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            in_date(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_ok() {
            return verify_tls13_signature(message, certificate, signed, &self.algorithms);
        }
        // X.509 version 1, which `openssl x509 -req` makes unless told otherwise: nothing for a chain,
        // but its key is as good as any, and `require` asks for no more.
        let key = SubjectPublicKeyInfoDer::from(
            parsed(certificate)?
                .tbs_certificate
                .subject_public_key_info
                .to_der()
                .map_err(|_| CertificateError::BadEncoding)?,
        );
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// Whether a certificate that is trusted as such may be used now.
fn in_date(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parsed(certificate)?.tbs_certificate.validity;
    let now_s = now.as_secs();
    if now_s < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now_s > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&contents(path, parameter)?)
        .collect::<Result<_, _>>()
        .map_err(|error| {
            format!(
                "{parameter} '{}' is not a PEM file of certificates: {error}",
                path.display()
            )
        })?;
    if found.is_empty() {
        return Err(format!(
            "{parameter} '{}' holds no certificate in PEM form ('-----BEGIN CERTIFICATE-----')",
            path.display()
        ));
    }
    Ok(found)
}

/// The private key of a PEM file. What the parser says is not repeated: it might quote the file.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    refuse_if_shared(path, "sslkey")?;
    PrivateKeyDer::from_pem_slice(&contents(path, "sslkey")?).map_err(|_| {
        format!(
            "sslkey '{}' holds no private key in PEM form that can be read; a key that is encrypted \
             must be decrypted first (`openssl pkey -in KEY -out PLAIN`)",
            path.display()
        )
    })
}

fn contents(path: &Path, parameter: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("{parameter} '{}' cannot be read: {error}", path.display()))
}

/// Refuses a file with secrets that others may read. As with libpq, the group may read what root owns:
/// so are keys handed to services.
pub(super) fn refuse_if_shared(path: &Path, parameter: &str) -> Result<(), String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path)
            .map_err(|error| format!("{parameter} '{}' cannot be read: {error}", path.display()))?;
        let shared = match (file.uid(), parameter) {
            (0, "sslkey") => 0o037,
            _ => 0o077,
        };
        if file.mode() & shared != 0 {
            return Err(format!(
                "{parameter} '{}' is open to other users of this machine (mode {:04o}); \
                 `chmod 0600` it",
                path.display(),
                file.mode() & 0o7777,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };
    use rustls::server::WebPkiClientVerifier;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
    use tokio_postgres::Config;
    use tokio_postgres::config::SslMode;

    use super::super::trouble::{self, Trouble};
    use super::*;

    /// What a server shows.
    struct Shown {
        certificate: CertificateDer<'static>,
        key: KeyPair,
    }

    /// An authority, and a folder for PEM files that goes with it.
    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        folder: PathBuf,
    }

    impl Drop for Authority {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let issuer =
                CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let folder = std::env::temp_dir().join(format!(
                "tls-{name}-{}-{}",
                std::process::id(),
                issuer.key().public_key_raw()[1..9]
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>()
            ));
            std::fs::create_dir_all(&folder).unwrap();
            Self { issuer, folder }
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            use std::os::unix::fs::PermissionsExt;
            let path = self.folder.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn roots(&self) -> Roots {
            Roots::File(self.file("ca.pem", &self.issuer.pem()))
        }

        fn signs(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
            let mut params = CertificateParams::new([host.to_owned()]).unwrap();
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            Shown {
                certificate: certificate.der().clone(),
                key,
            }
        }

        fn identity(&self, signer: &Self) -> Identity {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["app".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &signer.issuer).unwrap();
            Identity {
                certificate: self.file("client.pem", &certificate.pem()),
                key: self.file("client.key", &key.serialize_pem()),
            }
        }
    }

    fn of(mode: Mode, roots: Roots) -> Tls {
        Tls {
            mode,
            roots,
            identity: None,
        }
    }

    fn serving(shown: &Shown) -> ServerConfig {
        showing(shown, &[&TLS12, &TLS13])
    }

    /// Takes pairs of certificate and key that do not belong together, too.
    fn showing(shown: &Shown, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let key = provider
            .key_provider
            .load_private_key(der(&shown.key))
            .unwrap();
        let certified = CertifiedKey::new(vec![shown.certificate.clone()], key);
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
    }

    fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(key.serialize_der()).unwrap()
    }

    /// A server for one client, which lets everybody in who gets through the encryption; without
    /// `config` it knows plain text only. Its port; whether a client came in, and encrypted.
    fn server(config: Option<ServerConfig>) -> (u16, JoinHandle<Option<bool>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = word(&mut stream)?;
            if length == 8 {
                word(&mut stream)?;
                let Some(config) = config else {
                    stream.write_all(b"N").ok()?;
                    length = word(&mut stream)?;
                    return welcome(stream, length).map(|()| false);
                };
                stream.write_all(b"S").ok()?;
                let session = ServerConnection::new(Arc::new(config)).unwrap();
                let mut stream = StreamOwned::new(session, stream);
                length = word(&mut stream)?;
                return welcome(stream, length).map(|()| true);
            }
            welcome(stream, length).map(|()| false)
        });
        (port, thread)
    }

    fn word(stream: &mut impl Read) -> Option<u32> {
        let mut word = [0; 4];
        stream.read_exact(&mut word).ok()?;
        Some(u32::from_be_bytes(word))
    }

    /// Reads the rest of the first packet, answers that all is well, and waits for the client to go.
    fn welcome(mut stream: impl Read + Write, length: u32) -> Option<()> {
        stream.read_exact(&mut vec![0; length as usize - 4]).ok()?;
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").ok()?;
        // How the client goes is its own affair.
        let _gone = stream.read_to_end(&mut Vec::new());
        Some(())
    }

    /// Whether a client came in and encrypted, or what was wrong.
    fn tried(
        tls: &Tls,
        serving: Option<ServerConfig>,
        host: &str,
    ) -> Result<bool, (Trouble, String)> {
        let (port, thread) = server(serving);
        let mut config = Config::new();
        config
            .user("app")
            .host(host)
            .hostaddr([127, 0, 0, 1].into())
            .port(port)
            .ssl_mode(match tls.mode {
                Mode::Disable => SslMode::Disable,
                Mode::Prefer => SslMode::Prefer,
                _ => SslMode::Require,
            });
        let connector = tls.connector().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(async { config.connect(connector).await.map(drop) });
        let came_in = thread.join().unwrap();
        match outcome {
            Ok(()) => Ok(came_in.unwrap()),
            Err(error) => Err((
                trouble::of(&error),
                trouble::say("postgresql://app@h:1/d", &error),
            )),
        }
    }

    fn refused(outcome: Result<bool, (Trouble, String)>, why: &str) {
        let (trouble, said) = outcome.unwrap_err();
        assert_eq!(trouble, Trouble::Refused, "{said}");
        assert!(said.contains(why), "{said}");
    }

    const STRANGER: &str = "not signed by a certificate that is trusted";
    const OTHER_HOST: &str = "it is for another host";

    #[test]
    fn each_mode_accepts_and_refuses_what_it_should() {
        let authority = Authority::new("modes");
        let stranger = Authority::new("stranger");
        let good = authority.signs("db.example", |_| {});
        let strange = stranger.signs("db.example", |_| {});
        let expired = authority.signs("db.example", |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        });
        let unborn = authority.signs("db.example", |params| {
            params.not_before = date_time_ymd(2300, 1, 1);
            params.not_after = date_time_ymd(2301, 1, 1);
        });
        let meet = |tls: &Tls, shown: &Shown, host: &str| tried(tls, Some(serving(shown)), host);
        for mode in [Mode::Prefer, Mode::Require] {
            let tls = of(mode, Roots::Unnamed);
            for shown in [&good, &strange, &expired, &unborn] {
                assert_eq!(meet(&tls, shown, "elsewhere.example"), Ok(true));
            }
        }
        for mode in [
            Mode::Prefer,
            Mode::Require,
            Mode::VerifyCa,
            Mode::VerifyFull,
        ] {
            let tls = of(mode, authority.roots());
            assert_eq!(meet(&tls, &good, "db.example"), Ok(true));
            let elsewhere = meet(&tls, &good, "elsewhere.example");
            if mode == Mode::VerifyFull {
                refused(elsewhere, OTHER_HOST);
            } else {
                assert_eq!(elsewhere, Ok(true));
            }
            refused(meet(&tls, &strange, "db.example"), STRANGER);
            refused(meet(&tls, &expired, "db.example"), "it has expired");
            refused(meet(&tls, &unborn, "db.example"), "it is not valid yet");
        }
    }

    #[test]
    fn an_authority_of_the_same_name_is_another_one() {
        let (authority, namesake) = (Authority::new("name"), Authority::new("name"));
        let shown = namesake.signs("db.example", |_| {});
        let tls = of(Mode::VerifyCa, authority.roots());
        refused(
            tried(&tls, Some(serving(&shown)), "db.example"),
            "another certificate of the same name",
        );
    }

    #[test]
    fn addresses_are_names_too() {
        let authority = Authority::new("addresses");
        let tls = of(Mode::VerifyFull, authority.roots());
        let by_address = authority.signs("127.0.0.1", |_| {});
        assert_eq!(
            tried(&tls, Some(serving(&by_address)), "127.0.0.1"),
            Ok(true)
        );
        refused(
            tried(&tls, Some(serving(&by_address)), "127.0.0.2"),
            OTHER_HOST,
        );
    }

    #[test]
    fn what_the_system_trusts_does_not_hold_our_authority() {
        let authority = Authority::new("system");
        let tls = of(Mode::VerifyFull, Roots::System);
        let shown = authority.signs("db.example", |_| {});
        // A machine without any store says so before it connects.
        match tls.connector() {
            Ok(_) => refused(tried(&tls, Some(serving(&shown)), "db.example"), STRANGER),
            Err(said) => assert!(said.contains("ca-certificates"), "{said}"),
        }
    }

    #[test]
    fn a_server_without_encryption() {
        for mode in [Mode::Disable, Mode::Prefer] {
            assert_eq!(
                tried(&of(mode, Roots::Unnamed), None, "db.example"),
                Ok(false)
            );
        }
        let authority = Authority::new("plain");
        for mode in [Mode::Require, Mode::VerifyCa, Mode::VerifyFull] {
            refused(
                tried(&of(mode, authority.roots()), None, "db.example"),
                "does not offer TLS",
            );
        }
        let shown = authority.signs("db.example", |_| {});
        let disabled = tried(&Tls::disabled(), Some(serving(&shown)), "db.example");
        assert_eq!(disabled, Ok(false));
    }

    #[test]
    fn a_certificate_that_is_its_own_root() {
        let authority = Authority::new("own");
        let own = |until: i32| {
            let mut params = CertificateParams::new(["db.example".to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let roots =
                Roots::File(authority.file(&format!("own-{until}.pem"), &certificate.pem()));
            let certificate = certificate.der().clone();
            (Shown { certificate, key }, roots)
        };
        let (shown, roots) = own(2300);
        for mode in [Mode::VerifyCa, Mode::VerifyFull] {
            let tls = of(mode, roots.clone());
            assert_eq!(tried(&tls, Some(serving(&shown)), "db.example"), Ok(true));
        }
        let full = of(Mode::VerifyFull, roots);
        refused(
            tried(&full, Some(serving(&shown)), "elsewhere.example"),
            OTHER_HOST,
        );
        let (other, _) = own(2301);
        refused(
            tried(&full, Some(serving(&other)), "db.example"),
            "certificate that is refused",
        );
        let (old, roots) = own(2021);
        refused(
            tried(
                &of(Mode::VerifyCa, roots),
                Some(serving(&old)),
                "db.example",
            ),
            "it has expired",
        );
    }

    /// What `openssl x509 -req` makes unless it is told otherwise.
    #[test]
    fn certificates_of_version_one() {
        let authority = Authority::new("old");
        let mut shown = authority.signs("db.example", |_| {});
        let mut old = Certificate::from_der(&shown.certificate).unwrap();
        old.tbs_certificate.version = x509_cert::Version::V1;
        old.tbs_certificate.extensions = None;
        shown.certificate = old.to_der().unwrap().into();
        let require = of(Mode::Require, Roots::Unnamed);
        assert_eq!(
            tried(&require, Some(serving(&shown)), "db.example"),
            Ok(true)
        );
        let verify = of(Mode::VerifyCa, authority.roots());
        refused(
            tried(&verify, Some(serving(&shown)), "db.example"),
            "X.509 version 3",
        );
    }

    /// Without this, somebody in between could show a certificate that is not theirs, and channel
    /// binding would be worth nothing.
    #[test]
    fn the_key_is_proven_even_when_nothing_is_verified() {
        let authority = Authority::new("key");
        for version in [&TLS12, &TLS13] {
            let mut shown = authority.signs("db.example", |_| {});
            shown.key = KeyPair::generate().unwrap();
            let liar = showing(&shown, &[version]);
            refused(
                tried(&of(Mode::Require, Roots::Unnamed), Some(liar), "db.example"),
                "is not by the key that it should be by",
            );
        }
    }

    #[test]
    fn clients_show_who_they_are() {
        let authority = Authority::new("client");
        let stranger = Authority::new("client-stranger");
        let shown = authority.signs("db.example", |_| {});
        let strict = || {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let provider = Arc::new(ring::default_provider());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS12, &TLS13])
                .unwrap()
                .with_client_cert_verifier(verifier.build().unwrap())
                .with_single_cert(vec![shown.certificate.clone()], der(&shown.key))
                .unwrap()
        };
        let mut tls = of(Mode::VerifyFull, authority.roots());
        refused(
            tried(&tls, Some(strict()), "db.example"),
            "check sslcert and sslkey",
        );
        tls.identity = Some(stranger.identity(&stranger));
        refused(
            tried(&tls, Some(strict()), "db.example"),
            "check sslcert and sslkey",
        );
        tls.identity = Some(authority.identity(&authority));
        assert_eq!(tried(&tls, Some(strict()), "db.example"), Ok(true));
    }

    #[test]
    fn files_that_cannot_be_used() {
        use std::os::unix::fs::PermissionsExt;
        let authority = Authority::new("files");
        let said = |tls: &Tls| tls.connector().err().unwrap();
        let rooted = |path: &Path| said(&of(Mode::VerifyFull, Roots::File(path.into())));
        assert!(rooted(Path::new("/nowhere.pem")).contains("'/nowhere.pem' cannot be read"));
        assert!(rooted(&authority.file("empty.pem", "")).contains("holds no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(rooted(&authority.file("broken.pem", broken)).contains("cannot be used"));
        // Plain text needs none of them.
        assert!(
            of(Mode::Disable, Roots::File("/nowhere.pem".into()))
                .connector()
                .is_ok()
        );

        let good = authority.identity(&authority);
        let with = |certificate: &Path, key: &Path| {
            let mut tls = of(Mode::Require, Roots::Unnamed);
            tls.identity = Some(Identity {
                certificate: certificate.into(),
                key: key.into(),
            });
            said(&tls)
        };
        let nowhere = Path::new("/nowhere.pem");
        assert!(with(nowhere, &good.key).contains("sslcert '/nowhere.pem' cannot be read"));
        assert!(with(&good.certificate, nowhere).contains("sslkey '/nowhere.pem' cannot be read"));
        let other = authority.file("other.key", &KeyPair::generate().unwrap().serialize_pem());
        assert!(with(&good.certificate, &other).contains("cannot be used together"));
        let sealed = authority.file(
            "sealed.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n",
        );
        assert!(with(&good.certificate, &sealed).contains("must be decrypted first"));
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&good.key, open).unwrap();
        assert!(with(&good.certificate, &good.key).contains("chmod 0600"));
    }
}
