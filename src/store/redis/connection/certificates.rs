//! Certificates for TLS connections to Redis.

use std::fmt;

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::error::Error;

/// The certificates of TLS connections, in PEM.
#[derive(Clone, Default)]
pub(in crate::store::redis) struct Certificates {
    /// The authorities that have signed the servers' certificates.
    pub(in crate::store::redis) authority: Option<Vec<u8>>,
    /// The client certificate and its private key.
    pub(in crate::store::redis) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authority", &self.authority.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

impl Certificates {
    /// Returns the certificates for the client library, or `None` if none are set.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a file that is not PEM,
    /// and for certificates with a URL that does not use TLS.
    pub(in crate::store::redis) fn to_tls_certificates(
        &self,
        tls: bool,
    ) -> Result<Option<TlsCertificates>, Error> {
        if self.authority.is_none() && self.client.is_none() {
            return Ok(None);
        }
        if !tls {
            return Err(Error::configuration(
                "certificates are set for Redis, but its URL does not use TLS; use rediss://, \
                 rediss+sentinel:// or rediss+cluster://",
            ));
        }
        if let Some(authority) = &self.authority {
            check_certificates(authority, "the certificate authority for Redis")?;
        }
        let client_tls = match &self.client {
            Some((certificate, key)) => {
                check_certificates(certificate, "the client certificate for Redis")?;
                if PrivateKeyDer::from_pem_slice(key).is_err() {
                    return Err(Error::configuration(
                        "the key of the client certificate for Redis is no private key in PEM form",
                    ));
                }
                Some(ClientTlsConfig {
                    client_cert: certificate.clone(),
                    client_key: key.to_vec(),
                })
            }
            None => None,
        };
        Ok(Some(TlsCertificates {
            client_tls,
            root_cert: self.authority.clone(),
        }))
    }
}

/// Returns an error if a PEM file holds no certificate.
fn check_certificates(pem: &[u8], name: &str) -> Result<(), Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(Error::configuration(format!(
            "{name} is not a certificate in PEM form"
        ))),
    }
}
