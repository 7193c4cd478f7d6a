//! A certificate authority for a test, and the certificates that it has signed.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// A folder with `authority.pem`, and with certificates and keys of `server`, `client` and
/// `expired`, which expired in 2020. Dropping the value removes the folder.
pub struct Certificates(PathBuf);

impl Certificates {
    pub fn new() -> Self {
        let name = format!("tower-wechat-certificates-{}", super::free_port());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let certificates = Self(folder);

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(certificates.path("authority.pem"), authority.pem()).unwrap();

        for name in ["server", "client", "expired"] {
            let key = KeyPair::generate().unwrap();
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            if name == "expired" {
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            let signed = params.signed_by(&key, &authority).unwrap();
            std::fs::write(certificates.path(&format!("{name}.pem")), signed.pem()).unwrap();
            let key = key.serialize_pem();
            std::fs::write(certificates.path(&format!("{name}.key")), key).unwrap();
        }
        certificates
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Returns options with which a redis-server shows the certificate `server`. `wants_one` says
    /// whether its clients need a certificate.
    pub fn options(&self, server: &str, wants_one: bool) -> Vec<String> {
        let wants_one = if wants_one { "yes" } else { "no" };
        [
            "--tls-cert-file",
            &self.text(&format!("{server}.pem")),
            "--tls-key-file",
            &self.text(&format!("{server}.key")),
            "--tls-ca-cert-file",
            &self.text("authority.pem"),
            "--tls-auth-clients",
            wants_one,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
