//! What is known of an encrypted connection, and of the certificate that the other side has shown.

use ring::digest;
use rustls::{CipherSuite, CommonState, NamedGroup, ProtocolVersion, pki_types::CertificateDer};
use x509_cert::{
    Certificate,
    der::{
        Decode,
        oid::{ObjectIdentifier, db::rfc5912 as oid},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// An encrypted connection, its handshake done.
#[derive(Debug)]
pub struct TlsFacts {
    /// `TLSv1.3/TLS_AES_256_GCM_SHA384`: the column `tls` of SHOW CLIENTS, the word behind `tls=` in the log.
    pub description: Box<str>,
    /// Whom the certificate is about that the other side has shown and that was found to be in order: the dNSName
    /// entries of subjectAltName and the common name; none without a certificate.
    pub names: Box<[String]>,
    /// What SCRAM-SHA-256-PLUS binds to, `tls-server-end-point`: a hash of the server's certificate. `None` where its
    /// signature has none that PostgreSQL knows.
    pub end_point: Option<Box<[u8]>>,
}

/// Every name in a certificate; none if it cannot be read.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Box<[String]> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Box::default() };
    let body = certificate.tbs_certificate();
    let alternatives = body.get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
    let dns = alternatives.unwrap_or_default().into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    });
    let common_name = body.subject().common_name().ok().flatten();
    dns.chain(common_name.map(|name| name.value().into_owned())).collect()
}

/// The hash of RFC 5929: that of the certificate's signature, SHA-256 in place of weaker ones.
///
/// <https://www.postgresql.org/docs/current/sasl-authentication.html>
pub fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = hash_of(parsed.signature_algorithm().oid)?;
    Some(digest::digest(algorithm, certificate).as_ref().into())
}

fn hash_of(signature: ObjectIdentifier) -> Option<&'static digest::Algorithm> {
    match signature {
        oid::SHA_1_WITH_RSA_ENCRYPTION | oid::SHA_256_WITH_RSA_ENCRYPTION | oid::ECDSA_WITH_SHA_256 => {
            Some(&digest::SHA256)
        }
        oid::SHA_384_WITH_RSA_ENCRYPTION | oid::ECDSA_WITH_SHA_384 => Some(&digest::SHA384),
        oid::SHA_512_WITH_RSA_ENCRYPTION | oid::ECDSA_WITH_SHA_512 => Some(&digest::SHA512),
        // Ed25519 has no hash of its own and RSA-PSS not one: libpq does not bind to them either.
        _ => None,
    }
}

/// Version and cipher in OpenSSL's words, with the curve where PgBouncer has it.
pub(super) fn describe(session: &CommonState) -> Box<str> {
    let is_old = session.protocol_version() == Some(ProtocolVersion::TLSv1_2);
    let cipher = session.negotiated_cipher_suite().map(|suite| cipher_name(suite.suite())).unwrap_or("-".into());
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    match (is_old, group.and_then(curve_name)) {
        (true, Some(curve)) => format!("TLSv1.2/{cipher}/ECDH={curve}").into(),
        (true, None) => format!("TLSv1.2/{cipher}").into(),
        (false, _) => format!("TLSv1.3/{cipher}").into(),
    }
}

pub(super) fn curve_name(group: NamedGroup) -> Option<&'static str> {
    match group {
        NamedGroup::X25519 => Some("X25519"),
        NamedGroup::secp256r1 => Some("prime256v1"),
        NamedGroup::secp384r1 => Some("secp384r1"),
        _ => None,
    }
}

/// rustls speaks as the RFCs do: `TLS13_…`, and `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384` for what OpenSSL calls
/// `ECDHE-RSA-AES256-GCM-SHA384`.
pub(super) fn cipher_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or("-");
    if let Some(rest) = name.strip_prefix("TLS13_") {
        return format!("TLS_{rest}");
    }
    let name = name.strip_prefix("TLS_").unwrap_or(name).replace("_WITH_", "-").replace("AES_", "AES");
    let name = name.strip_suffix("POLY1305_SHA256").map(|name| format!("{name}POLY1305")).unwrap_or(name);
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_called_as_openssl_calls_them() {
        for (suite, name) in [
            (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
            (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
            (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"),
            (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
        ] {
            assert_eq!(cipher_name(suite), name);
        }
    }

    fn certificate(params: rcgen::CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_about_its_common_name_and_its_dns_names() {
        let mut params = rcgen::CertificateParams::new(["alice".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Alice Cooper");
        assert_eq!(*names(&certificate(params)), ["alice", "Alice Cooper"]);
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        assert!(names(&vec![0x30, 0x01].into()).is_empty());
    }

    #[test]
    fn the_end_point_is_the_hash_of_the_certificates_signature() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let sign = |algorithm| {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = params.clone().self_signed(&key).unwrap().der().clone();
            (end_point(&certificate), certificate)
        };
        let (hash, certificate) = sign(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash.as_deref(), Some(digest::digest(&digest::SHA384, &certificate).as_ref()));
        let (hash, certificate) = sign(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash.as_deref(), Some(digest::digest(&digest::SHA256, &certificate).as_ref()));
        assert_eq!(sign(&rcgen::PKCS_ED25519).0, None);
    }
}
