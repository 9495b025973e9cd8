//! PgBouncer's and OpenSSL's names of what TLS may use. What is not built (versions before 1.2; ciphers without
//! forward secrecy, authentication of the data, or both) is known by its name.

use super::MainSection;

/// Versions that may be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
    /// TLS 1.0 or 1.1 was named, which is not built.
    pub older: bool,
}

/// OpenSSL's names of the ciphers of TLS 1.2 that are built, the preferred ones first.
pub const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
];

/// Those of TLS 1.3.
pub const CIPHERS_13: [&str; 3] = ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"];

const EXPECTED_VERSIONS: &str = "secure, all, legacy, or a list of tlsv1.2 and tlsv1.3 (older ones are not supported)";
const EXPECTED_CIPHERS: &str = "default, secure, fast, normal, legacy, all, or OpenSSL's names of ciphers, some of \
     ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-CHACHA20-POLY1305, \
     ECDHE-RSA-CHACHA20-POLY1305, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256 among them";
const EXPECTED_CIPHERS_13: &str =
    "some of TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 and TLS_AES_128_GCM_SHA256, separated by colons";
const EXPECTED_CURVE: &str = "auto, none, X25519, prime256v1 or secp384r1";

/// `*_tls_protocols`: names separated by commas or colons, `!` in front takes one away.
pub fn versions(text: &str) -> Result<TlsVersions, &'static str> {
    let nothing = TlsVersions { tls12: false, tls13: false, older: false };
    let everything = TlsVersions { tls12: true, tls13: true, older: false };
    if text.is_empty() {
        return Ok(everything);
    }
    let mut versions = nothing;
    for word in text.split([',', ':']).map(str::trim) {
        let (word, wanted) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
        if !wanted && versions == nothing {
            versions = everything;
        }
        match word.to_ascii_lowercase().as_str() {
            "all" | "legacy" | "secure" | "default" => (versions.tls12, versions.tls13) = (wanted, wanted),
            "tlsv1.2" => versions.tls12 = wanted,
            "tlsv1.3" => versions.tls13 = wanted,
            "tlsv1" | "tlsv1.0" | "tlsv1.1" => versions.older |= wanted,
            _ => return Err(EXPECTED_VERSIONS),
        }
    }
    if versions.tls12 || versions.tls13 { Ok(versions) } else { Err(EXPECTED_VERSIONS) }
}

/// `*_tls_ciphers`: a shortcut, or a list in OpenSSL's syntax; the result is some of [`CIPHERS`] in the list's order.
///
/// <https://docs.openssl.org/master/man1/openssl-ciphers/>
pub fn ciphers(text: &str) -> Result<Vec<&'static str>, &'static str> {
    let shortcuts = ["", "default", "secure", "fast", "normal", "legacy", "compat", "all"];
    if shortcuts.iter().any(|shortcut| shortcut.eq_ignore_ascii_case(text)) {
        return Ok(CIPHERS.to_vec());
    }
    let (mut chosen, mut killed): (Vec<&'static str>, Vec<&'static str>) = Default::default();
    for word in text.split([':', ',', ' ', ';']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let named = |word: &str| -> Result<Vec<&'static str>, &'static str> {
            let parts = word.split('+').map(matching).collect::<Result<Vec<_>, _>>()?;
            Ok(CIPHERS.into_iter().filter(|cipher| parts.iter().all(|part| part.contains(cipher))).collect())
        };
        match word.split_at_checked(1) {
            Some(("!", rest)) => {
                killed.extend(named(rest)?);
                chosen.retain(|cipher| !killed.contains(cipher));
            }
            Some(("-", rest)) => {
                let named = named(rest)?;
                chosen.retain(|cipher| !named.contains(cipher));
            }
            Some(("+", rest)) => {
                let named = named(rest)?;
                let (last, first): (Vec<_>, Vec<_>) = chosen.iter().partition(|cipher| named.contains(*cipher));
                chosen = [first, last].concat();
            }
            _ => {
                let new: Vec<_> =
                    named(word)?.into_iter().filter(|c| !chosen.contains(c) && !killed.contains(c)).collect();
                chosen.extend(new);
            }
        }
    }
    if chosen.is_empty() { Err(EXPECTED_CIPHERS) } else { Ok(chosen) }
}

/// The ciphers that one word of a list names; none for what OpenSSL knows and is not built.
fn matching(word: &str) -> Result<Vec<&'static str>, &'static str> {
    let upper = word.to_ascii_uppercase();
    let with = |part: &str| Ok(CIPHERS.into_iter().filter(|cipher| cipher.contains(part)).collect());
    match upper.as_str() {
        "ALL" | "HIGH" | "DEFAULT" | "TLSV1.2" | "ECDHE" | "EECDH" | "KECDHE" | "KEECDH" => with(""),
        "AESGCM" => with("GCM"),
        "AES" => with("AES"),
        "AES128" => with("AES128"),
        "AES256" => with("AES256"),
        "CHACHA20" => with("CHACHA20"),
        "SHA256" => with("SHA256"),
        "SHA384" => with("SHA384"),
        "ECDSA" | "AECDSA" => with("-ECDSA-"),
        "ARSA" => with("-RSA-"),
        "COMPLEMENTOFALL"
        | "COMPLEMENTOFDEFAULT"
        | "MEDIUM"
        | "LOW"
        | "EXP"
        | "EXPORT"
        | "ANULL"
        | "ENULL"
        | "KRSA"
        | "KDHE"
        | "KEDH"
        | "DH"
        | "ADSS"
        | "3DES"
        | "RC2"
        | "SHA1"
        | "CAMELLIA"
        | "IDEA"
        | "KPSK"
        | "KRB5"
        | "ARIA"
        | "AESCCM"
        | "SSLV2"
        | "SSLV3"
        | "TLSV1"
        | "TLSV1.0"
        | "TLSV1.1" => Ok(Vec::new()),
        name if CIPHERS.contains(&name) => Ok(CIPHERS.into_iter().filter(|cipher| *cipher == name).collect()),
        other if other.split('-').all(|part| PARTS.contains(&part)) => Ok(Vec::new()),
        _ => Err(EXPECTED_CIPHERS),
    }
}

/// What names of OpenSSL's ciphers are made of.
const PARTS: [&str; 36] = [
    "ECDHE",
    "DHE",
    "EDH",
    "ADH",
    "AECDH",
    "ECDH",
    "RSA",
    "ECDSA",
    "DSS",
    "PSK",
    "SRP",
    "NULL",
    "AES128",
    "AES256",
    "GCM",
    "CBC",
    "CBC3",
    "CCM",
    "CCM8",
    "SHA",
    "SHA256",
    "SHA384",
    "MD5",
    "CHACHA20",
    "POLY1305",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "DES",
    "RC4",
    "SEED",
    "EXP",
    "3DES",
    "IDEA",
];

/// `*_tls13_ciphers`, some of [`CIPHERS_13`] in the list's order; all if none are named.
pub fn ciphers_13(text: Option<&str>) -> Result<Vec<&'static str>, &'static str> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(CIPHERS_13.to_vec()) };
    let mut chosen = Vec::new();
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        match CIPHERS_13.iter().find(|cipher| cipher.eq_ignore_ascii_case(word)) {
            Some(cipher) => chosen.push(*cipher),
            None if ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"].contains(&word) => {}
            None => return Err(EXPECTED_CIPHERS_13),
        }
    }
    if chosen.is_empty() { Err(EXPECTED_CIPHERS_13) } else { Ok(chosen) }
}

/// `client_tls_ecdhcurve`, by the names that SHOW CLIENTS has; `None` leaves the choice to both sides. There are no
/// key exchanges without a curve here, so `none` changes nothing.
pub fn curve(text: &str) -> Result<Option<&'static str>, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "" | "auto" | "none" => Ok(None),
        "x25519" => Ok(Some("X25519")),
        "prime256v1" | "secp256r1" | "p-256" => Ok(Some("prime256v1")),
        "secp384r1" | "p-384" => Ok(Some("secp384r1")),
        _ => Err(EXPECTED_CURVE),
    }
}

pub(super) fn check_versions(text: &str) -> Result<(), &'static str> {
    versions(text).map(drop)
}

pub(super) fn check_ciphers(text: &str) -> Result<(), &'static str> {
    ciphers(text).map(drop)
}

pub(super) fn check_ciphers_13(text: &Option<String>) -> Result<(), &'static str> {
    ciphers_13(text.as_deref()).map(drop)
}

pub(super) fn check_curve(text: &str) -> Result<(), &'static str> {
    curve(text).map(drop)
}

/// There is no DHE here: the words are known and change nothing.
pub(super) fn check_dheparams(text: &str) -> Result<(), &'static str> {
    let is_known = ["", "auto", "none", "legacy"].iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_known { Ok(()) } else { Err("auto, none or legacy") }
}

impl MainSection {
    /// Keys that ask for a version of TLS that is not built beside one that is.
    #[must_use]
    pub fn asks_for_old_tls(&self) -> Vec<&'static str> {
        let keys = [
            ("client_tls_protocols", &self.client_tls_protocols),
            ("server_tls_protocols", &self.server_tls_protocols),
        ];
        let asks = |text: &str| versions(text).is_ok_and(|versions| versions.older);
        keys.into_iter().filter(|(_, text)| asks(text)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_protocols(text: &str, tls12: bool, tls13: bool, older: bool) {
        assert_eq!(versions(text), Ok(TlsVersions { tls12, tls13, older }), "{text}");
    }

    #[test]
    fn versions_are_called_as_pgbouncer_calls_them() {
        for text in ["", "secure", "all", "Legacy", "default", "tlsv1.2,tlsv1.3", "TLSv1.3:TLSv1.2", "!tlsv1.1"] {
            check_protocols(text, true, true, false);
        }
        check_protocols("tlsv1.2", true, false, false);
        check_protocols("tlsv1.3", false, true, false);
        check_protocols("all, !tlsv1.2", false, true, false);
        check_protocols("tlsv1.0,tlsv1.1,tlsv1.2", true, false, true);
    }

    #[test]
    fn versions_that_are_not_built_are_refused_when_nothing_else_is_left() {
        for text in ["tlsv1.0", "tlsv1.1,tlsv1", "sslv3", "tlsv1.4", "all,!all", "tlsv1.2,,"] {
            assert_eq!(versions(text), Err(EXPECTED_VERSIONS), "{text}");
        }
    }

    /// Each expected cipher by its place in the table.
    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        let expected: Vec<_> = expected.iter().map(|place| CIPHERS[*place]).collect();
        assert_eq!(ciphers(text), Ok(expected), "{text}");
    }

    #[test]
    fn ciphers_are_chosen_by_shortcuts_classes_and_names() {
        for text in ["", "default", "Secure", "fast", "normal", "legacy", "all", "HIGH:MEDIUM:+3DES:!aNULL", "ECDHE"] {
            check(text, &[0, 1, 2, 3, 4, 5]);
        }
        check("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", &[5, 1]);
        check("AES128", &[4, 5]);
        check("ECDHE+CHACHA20:AESGCM+aRSA", &[2, 3, 1, 5]);
        check("HIGH:!CHACHA20:-AES128:@STRENGTH", &[0, 1]);
        check("!AES256:ALL:+ECDSA", &[3, 5, 2, 4]);
    }

    #[test]
    fn a_list_for_openssl_keeps_what_is_built_of_it() {
        check("DHE-RSA-AES256-SHA:ECDHE-RSA-AES256-SHA384:AES256-SHA:ECDHE-RSA-AES256-GCM-SHA384", &[1]);
        for text in ["AES256-SHA", "RC4-MD5:DES-CBC3-SHA", "!ALL", "ALL:!HIGH"] {
            assert_eq!(ciphers(text), Err(EXPECTED_CIPHERS), "{text}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_refused() {
        for text in ["fastest", "ECDHE-RSA-AES512-GCM-SHA384", "HIGH:!fastest", "TLS_AES_256_GCM_SHA384"] {
            assert_eq!(ciphers(text), Err(EXPECTED_CIPHERS), "{text}");
        }
        assert_eq!(ciphers_13(Some("TLS_AES_512")), Err(EXPECTED_CIPHERS_13));
        assert_eq!(ciphers_13(Some("TLS_AES_128_CCM_SHA256")), Err(EXPECTED_CIPHERS_13));
        assert_eq!(curve("secp521r1"), Err(EXPECTED_CURVE));
    }

    #[test]
    fn ciphers_of_the_newest_version_are_named_in_full() {
        assert_eq!(ciphers_13(None), Ok(CIPHERS_13.to_vec()));
        assert_eq!(ciphers_13(Some("")), Ok(CIPHERS_13.to_vec()));
        let some = "TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256:TLS_AES_256_GCM_SHA384";
        assert_eq!(ciphers_13(Some(some)), Ok(vec![CIPHERS_13[2], CIPHERS_13[0]]));
    }

    #[test]
    fn curves_have_several_names() {
        for (text, curve_) in [("auto", None), ("P-256", Some("prime256v1")), ("x25519", Some("X25519"))] {
            assert_eq!(curve(text), Ok(curve_));
        }
    }
}
