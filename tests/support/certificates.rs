//! Certificates made for one test run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use super::scratch::scratch;

/// Somebody who issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, for its owner's eyes only.
    pub key: PathBuf,
    /// The certificate.
    pub der: CertificateDer<'static>,
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = scratch().directory("certificates");
        scratch().write(&directory.join("ca.crt"), &issuer.pem());
        Self { issuer, directory }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for this common name and these names and addresses.
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Pair {
        self.write(named(common_name, names), &self.directory.join(scratch().unique().to_string()))
    }

    /// One that was valid long ago.
    pub fn issue_expired(&self, common_name: &str, names: &[&str]) -> Pair {
        let mut params = named(common_name, names);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.write(params, &self.directory.join(scratch().unique().to_string()))
    }

    /// Puts another certificate for the same names in the files of `pair`.
    pub fn renew(&self, pair: &Pair, common_name: &str, names: &[&str]) -> Pair {
        self.write(named(common_name, names), &pair.certificate.with_extension(""))
    }

    fn write(&self, params: CertificateParams, path: &Path) -> Pair {
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: path.with_extension("crt"),
            key: path.with_extension("key"),
            der: signed.der().clone(),
        };
        scratch().write(&pair.certificate, &signed.pem());
        scratch().write(&pair.key, &key.serialize_pem());
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
        pair
    }

    /// A client that trusts nobody else, and asks for these protocols by ALPN.
    pub fn trusting_client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
