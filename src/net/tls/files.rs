//! Certificates, keys and issuers as they stand in files, and what rustls makes of the other settings.

use std::{fs, sync::Arc};

use rustls::{
    RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::{
    peer::{cipher_name, curve_name},
    verify::Issuers,
};
use crate::config::{ConfigError, tls};

/// Something is wrong with what `key` names.
pub(super) fn wrong(key: &str, expected: &str, got: impl Into<String>) -> ConfigError {
    ConfigError { location: None, key: Some(key.to_owned()), expected: expected.to_owned(), got: got.into() }
}

fn read(key: &str, file: &str) -> Result<Vec<u8>, ConfigError> {
    fs::read(file).map_err(|error| wrong(key, "a readable file", format!("{file}: {error}")))
}

/// A certificate and what it was read from.
pub(super) struct Read<T> {
    pub(super) value: T,
    /// The file's content.
    pub(super) bytes: Vec<u8>,
}

pub(super) fn certificates(key: &str, file: &str) -> Result<Read<Vec<CertificateDer<'static>>>, ConfigError> {
    let bytes = read(key, file)?;
    let expected = "a file with certificates in PEM";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(value) if value.is_empty() => Err(wrong(key, expected, format!("{file}: none in it"))),
        Ok(value) => Ok(Read { value, bytes }),
        Err(error) => Err(wrong(key, expected, format!("{file}: {error}"))),
    }
}

/// Who is trusted: the certificates of a file, or without one those that the machine trusts.
pub(super) fn issuers(key: &str, file: &str) -> Result<Read<Issuers>, ConfigError> {
    let Read { value: certificates, bytes } = match file {
        "" => Read { value: rustls_native_certs::load_native_certs().certs, bytes: Vec::new() },
        file => certificates(key, file)?,
    };
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        let got = if file.is_empty() { "nothing, and the machine trusts nobody".to_owned() } else { file.to_owned() };
        return Err(wrong(key, "a file with the certificates of issuers", got));
    }
    Ok(Read { value: Issuers { roots, certificates }, bytes })
}

/// The certificates of `cert_file`, the first of them with its key.
pub(super) struct Own {
    pub(super) resolver: Arc<SingleCertAndKey>,
    pub(super) first: CertificateDer<'static>,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn own(
    provider: &CryptoProvider,
    (cert_key, cert_file): (&str, &str),
    (key_key, key_file): (&str, &str),
) -> Result<Own, ConfigError> {
    let Read { value: chain, mut bytes } = certificates(cert_key, cert_file)?;
    let pem = read(key_key, key_file)?;
    let expected = "a file with a private key in PEM, without a password";
    let refused = |error: String| wrong(key_key, expected, format!("{key_file}: {error}"));
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| refused(error.to_string()))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| refused(error.to_string()))?;
    let Some(first) = chain.first().cloned() else {
        return Err(wrong(cert_key, "a file with certificates in PEM", cert_file));
    };
    let certified = CertifiedKey::new(chain, key);
    // What cannot be compared is taken on trust.
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = certified.keys_match() {
        return Err(wrong(key_key, &format!("the private key of {cert_file}"), format!("{key_file}: another one")));
    }
    bytes.extend_from_slice(&pem);
    Ok(Own { resolver: Arc::new(SingleCertAndKey::from(certified)), first, bytes })
}

/// `secure` and the like as rustls has it.
pub(super) fn versions(key: &str, text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigError> {
    let versions = tls::versions(text).map_err(|expected| wrong(key, expected, text))?;
    let pairs = [(versions.tls13, &TLS13), (versions.tls12, &TLS12)];
    Ok(pairs.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, version)| version).collect())
}

/// The arithmetic, with these ciphers and this curve.
pub(super) fn provider(
    (ciphers_key, ciphers): (&str, &str),
    (ciphers_13_key, ciphers_13): (&str, Option<&str>),
    (curve_key, curve): (&str, &str),
) -> Result<Arc<CryptoProvider>, ConfigError> {
    let older = tls::ciphers(ciphers).map_err(|expected| wrong(ciphers_key, expected, ciphers))?;
    let newer = ciphers_13.unwrap_or_default();
    let newer = tls::ciphers_13(ciphers_13).map_err(|expected| wrong(ciphers_13_key, expected, newer))?;
    let curve = tls::curve(curve).map_err(|expected| wrong(curve_key, expected, curve))?;
    let mut provider = ring::default_provider();
    let all = std::mem::take(&mut provider.cipher_suites);
    let named = |name: &&str| all.iter().find(|suite| cipher_name(suite.suite()) == **name).copied();
    provider.cipher_suites = newer.iter().chain(&older).filter_map(named).collect();
    provider.kx_groups.retain(|group| curve.is_none() || curve == curve_name(group.name()));
    Ok(Arc::new(provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_that_the_configuration_names_is_there() {
        let provider = provider(("c", "all"), ("d", None), ("e", "auto")).unwrap();
        let names: Vec<_> = provider.cipher_suites.iter().map(|suite| cipher_name(suite.suite())).collect();
        assert_eq!(names, [&tls::CIPHERS_13[..], &tls::CIPHERS].concat());
        assert_eq!(provider.kx_groups.len(), 3);
    }

    #[test]
    fn a_curve_is_the_only_one() {
        let provider = provider(("c", "all"), ("d", None), ("e", "secp384r1")).unwrap();
        let curves: Vec<_> = provider.kx_groups.iter().map(|group| curve_name(group.name())).collect();
        assert_eq!(curves, [Some("secp384r1")]);
    }
}
