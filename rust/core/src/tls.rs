//! Encryption of connections, by rustls, under libpq's rules for `sslmode` and certificates.
//!
//! A root certificate makes every mode check the chain, as in libpq; `verify-full` also checks the name. Unlike
//! libpq, a name must stand in the certificate's subjectAltName: the common name is not looked at. Unlike libpq too,
//! `verify-full` is what counts off this machine when no `sslmode` is given (`config/loopback.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// How much of TLS is wanted, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never encrypt.
    Disable,
    /// Encrypt if the server insists.
    Allow,
    /// Encrypt if the server can.
    Prefer,
    /// Encrypt; the chain is checked only if there is a root certificate.
    Require,
    /// Encrypt and check the chain.
    VerifyCa,
    /// Encrypt, check the chain and the server's name.
    VerifyFull,
}

/// A connector for streams that are never encrypted, which the driver wants all the same.
///
/// # Errors
/// [`Error::Config`] if TLS cannot be set up at all.
pub(crate) fn unused_connector() -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?;
    Ok(MakeRustlsConnect::new(
        builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    ))
}

/// The TLS part of a connection's settings. Files are read anew for each connection, so that certificates can
/// be renewed under a running worker.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// How much is wanted.
    pub mode: SslMode,
    /// `sslrootcert`: a PEM file or `system`.
    pub root: Option<String>,
    /// `sslcert`: the client's certificate chain, PEM.
    pub certificate: Option<String>,
    /// `sslkey`: its private key, PEM, not encrypted.
    pub key: Option<String>,
    /// False: no client certificate, not even the one in the usual place.
    pub send_certificate: bool,
    /// Send the host name in the handshake (SNI).
    pub server_name: bool,
    /// Start with TLS instead of asking for it first (`sslnegotiation=direct`).
    pub direct: bool,
    /// TLS 1.2 may be spoken.
    pub tls12: bool,
    /// TLS 1.3 may be spoken.
    pub tls13: bool,
}

impl TlsSettings {
    /// Reads the certificates and makes what starts TLS on a stream.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that is missing, unreadable, not PEM, or a key that others may read.
    pub fn connector(&self) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut versions: Vec<&'static rustls::SupportedProtocolVersion> = Vec::new();
        if self.tls12 {
            versions.push(&rustls::version::TLS12);
        }
        if self.tls13 {
            versions.push(&rustls::version::TLS13);
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match self.identity()? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::Config(format!(
                    "sslcert and sslkey cannot be used together: {error}"
                ))
            })?,
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.server_name;
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let roots = match &self.root {
            Some(name) if name == "system" => Some(system_roots()?),
            Some(path) => match (certificates(Path::new(path), "sslrootcert"), self.mode) {
                (Ok(roots), _) => Some(root_store(roots, path)?),
                // libpq too checks nothing below verify-ca when the file is not there.
                (Err(_), mode) if mode < SslMode::VerifyCa && !Path::new(path).exists() => None,
                (Err(error), _) => return Err(error),
            },
            None => match usual("root.crt") {
                Some(path) => Some(root_store(
                    certificates(&path, "sslrootcert")?,
                    &path.to_string_lossy(),
                )?),
                None if self.mode == SslMode::VerifyFull => Some(system_roots()?),
                None if self.mode == SslMode::VerifyCa => {
                    return Err(Error::Config(
                        "sslmode=verify-ca needs the authority's certificate: give sslrootcert=FILE".to_owned(),
                    ));
                }
                None => None,
            },
        };
        Ok(match roots {
            Some(roots) if self.mode == SslMode::VerifyFull => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| {
                        Error::Config(format!("sslrootcert cannot be used: {error}"))
                    })?
            }
            roots => Arc::new(ChainOnly { roots, provider }),
        })
    }

    /// The client's certificate and key, if it has any.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        if !self.send_certificate {
            return Ok(None);
        }
        let Some(certificate) = self
            .certificate
            .as_ref()
            .map(PathBuf::from)
            .or_else(|| usual("postgresql.crt"))
        else {
            return Ok(None);
        };
        let chain = certificates(&certificate, "sslcert")?;
        let key = self
            .key
            .as_ref()
            .map(PathBuf::from)
            .or_else(|| usual("postgresql.key"))
            .ok_or_else(|| {
                Error::Config(format!(
                    "there is a client certificate ({}) but no key: give sslkey=FILE",
                    certificate.display()
                ))
            })?;
        Ok(Some((chain, private_key(&key)?)))
    }
}

/// A file of the usual place, `~/.postgresql`, if it exists.
fn usual(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("HOME")?)
        .join(".postgresql")
        .join(name);
    path.exists().then_some(path)
}

fn certificates(path: &Path, keyword: &str) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| Error::Config(format!("{keyword} {shown} cannot be read: {error}")))?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Config(format!(
            "{keyword} {shown} holds no certificate in PEM form"
        ))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let unreadable = |error| Error::Config(format!("sslkey {shown} cannot be read: {error}"));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    // libpq's rule: the owner alone, or a key of root's that a group may read.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(Error::Config(format!(
            "sslkey {shown} can be read by others: run chmod 600 on it"
        )));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let text = String::from_utf8_lossy(&bytes);
        Error::Config(if text.contains("ENCRYPTED") {
            format!("sslkey {shown} is encrypted, which is not supported: decrypt it with `openssl pkey`")
        } else {
            format!("sslkey {shown} holds no private key in PEM form")
        })
    })
}

fn root_store(found: Vec<CertificateDer<'static>>, shown: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(Error::Config(format!(
            "sslrootcert {shown} holds no certificate that can be used"
        )));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(Error::Config(
            "the system has no authorities' certificates: install them (ca-certificates), or give sslrootcert=FILE; \
             sslmode=verify-full is asked for off this machine unless sslmode says otherwise".to_owned(),
        ));
    }
    Ok(roots)
}

/// Checks the chain and the dates, but not the name. Without roots it checks only that the server owns the key
/// it shows, which protects from listeners and not from impostors.
#[derive(Debug)]
struct ChainOnly {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a failed handshake means for the reader, if it was TLS that failed.
#[must_use]
pub fn explain(error: &tokio_postgres::Error) -> Option<String> {
    let failure = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    let failure = failure.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match failure {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => {
                "the server's certificate is not signed by a trusted authority: give its certificate as sslrootcert".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another host name: connect by a name it lists as subjectAltName".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it on the server".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: check the clocks of both machines".to_owned()
            }
            other => format!("the server's certificate cannot be trusted ({other}): have it issued anew by your authority"),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("the server ended TLS ({alert:?}): check sslcert, sslkey and the protocol versions")
        }
        other => format!("TLS failed ({other}): check that this is a PostgreSQL server that speaks TLS 1.2 or later"),
    })
}
