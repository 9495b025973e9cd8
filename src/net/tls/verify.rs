//! How much of a server's certificate is checked.

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// What of it must be in order.
#[derive(Debug)]
pub(super) enum Checks {
    /// Nothing but that the server has its key: `allow`, `prefer`, `require`.
    Nothing,
    /// One of these has issued it: `verify-ca`.
    Issuer(Issuers),
    /// And it carries the name that the connect string has: `verify-full`.
    IssuerAndName(Issuers),
}

/// Who is trusted.
#[derive(Debug)]
pub(super) struct Issuers {
    pub(super) roots: RootCertStore,
    /// The same, as they stand in the file: a server may show one of them as its own.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Checks servers' certificates as PgBouncer and libpq do.
#[derive(Debug)]
pub(super) struct ServerCheck {
    pub(super) checks: Checks,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

fn invalid(error: CertificateError) -> Error {
    Error::InvalidCertificate(error)
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| invalid(CertificateError::BadEncoding))
}

impl Issuers {
    fn have_issued(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        if self.certificates.iter().any(|trusted| trusted.as_ref() == certificate.as_ref()) {
            return is_in_force(certificate, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms.all)
    }
}

fn is_in_force(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = read(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    let (from, until) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
    match now.as_secs() {
        now if now < from.as_secs() => Err(invalid(CertificateError::NotValidYet)),
        now if now > until.as_secs() => Err(invalid(CertificateError::Expired)),
        _ => Ok(()),
    }
}

/// The names of subjectAltName count; where it has neither names nor addresses, the common name does, as for libpq.
///
/// <https://www.postgresql.org/docs/current/libpq-ssl.html>
fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let refused = match ParsedCertificate::try_from(certificate) {
        Ok(parsed) => match verify_server_name(&parsed, name) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        },
        Err(_) => invalid(CertificateError::NotValidForName),
    };
    let certificate = read(certificate)?;
    let common_name = certificate.tbs_certificate().subject().common_name().ok().flatten();
    let common_name = common_name.map(|name| name.value().into_owned()).unwrap_or_default();
    if !has_alternatives(&certificate) && is_named(&common_name, &name.to_str()) { Ok(()) } else { Err(refused) }
}

fn has_alternatives(certificate: &Certificate) -> bool {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok().flatten();
    names.is_some_and(|(_, names)| {
        names.0.iter().any(|name| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_)))
    })
}

/// `*.example.com` stands for one more label in front.
fn is_named(common_name: &str, host: &str) -> bool {
    let is_same = |one: &str, other: &str| !one.is_empty() && one.eq_ignore_ascii_case(other);
    match (common_name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => domain.contains('.') && !label.is_empty() && is_same(domain, rest),
        _ => is_same(common_name, host),
    }
}

impl ServerCheck {
    /// The signature by the key alone: rustls' own check reads certificates of version 3 only, and older ones are
    /// what `openssl x509` makes when nobody asks for more.
    fn by_key(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = read(certificate)?;
        let key = certificate.tbs_certificate().subject_public_key_info();
        let bad = |_| invalid(CertificateError::BadEncoding);
        let identifier = key.algorithm.to_der().map_err(bad)?;
        // Without the outer tag and its length, which has one byte.
        let identifier = identifier.get(2..).unwrap_or_default();
        let key = key.subject_public_key.as_bytes().unwrap_or_default();
        let mut known = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let is_right = known.any(|(_, algorithms)| {
            algorithms.iter().any(|algorithm| {
                algorithm.public_key_alg_id().as_ref() == identifier
                    && algorithm.verify_signature(key, message, signed.signature()).is_ok()
            })
        });
        if is_right { Ok(HandshakeSignatureValid::assertion()) } else { Err(invalid(CertificateError::BadSignature)) }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.checks {
            Checks::Nothing => {}
            Checks::Issuer(issuers) => issuers.have_issued(certificate, intermediates, now, &self.algorithms)?,
            Checks::IssuerAndName(issuers) => {
                issuers.have_issued(certificate, intermediates, now, &self.algorithms)?;
                is_for(certificate, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            Err(_) => self.by_key(message, certificate, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match ParsedCertificate::try_from(certificate) {
            Ok(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            Err(_) => self.by_key(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    /// Is a certificate with this common name and these alternatives one for `host`?
    #[track_caller]
    fn check(common_name: &str, alternatives: &[&str], host: &str, expected: bool) {
        let names: Vec<_> = alternatives.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let name = ServerName::try_from(host).unwrap();
        assert_eq!(is_for(certificate.der(), &name).is_ok(), expected, "{common_name} {alternatives:?} {host}");
    }

    #[test]
    fn the_alternative_names_count_where_there_are_any() {
        check("db2", &["db1", "127.0.0.1"], "db1", true);
        check("db2", &["db1", "127.0.0.1"], "127.0.0.1", true);
        check("db2", &["db1", "127.0.0.1"], "db2", false);
        check("db2", &["*.example.com"], "db1.example.com", true);
        check("db2", &["*.example.com"], "a.db1.example.com", false);
        check("127.0.0.2", &["db1"], "127.0.0.2", false);
    }

    #[test]
    fn without_alternatives_the_common_name_counts() {
        check("db1", &[], "DB1", true);
        check("db1", &[], "db2", false);
        check("127.0.0.1", &[], "127.0.0.1", true);
        check("*.example.com", &[], "db1.example.com", true);
        check("*.example.com", &[], "example.com", false);
        check("*.com", &[], "example.com", false);
        check("", &[], "db1", false);
    }
}
