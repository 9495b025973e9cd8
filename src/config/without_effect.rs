//! Settings that are read and checked and do nothing yet: whoever sets one is told so.

use super::Config;

/// As SHOW CONFIG names them.
const WITHOUT_EFFECT: &[&str] = &[
    "auth_ldap_options",
    "client_tls_dheparams",
    "dns_zone_check_period",
    "job_name",
    "pkt_buf",
    "resolv_conf",
    "sbuf_loopcnt",
    "tcp_defer_accept",
    "insight.explain_slow_queries",
];

impl Config {
    /// Settings that ask for something that this version does not do, in the order of SHOW CONFIG.
    pub fn without_effect(&self) -> Vec<String> {
        let asks = |key: &str| WITHOUT_EFFECT.contains(&key);
        let rows = self.show().into_iter().filter(|row| row.value != row.default && asks(&row.key));
        rows.map(|row| row.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let text = format!("[pgbouncer]\nauth_type = trust\n{text}");
        let config = Config::parse(&text, "a.ini", &|_| None, &no_file).unwrap();
        assert_eq!(config.without_effect(), expected);
    }

    #[test]
    fn a_setting_that_does_nothing_is_named_when_it_is_not_the_default() {
        check("pkt_buf = 4096\n", &[]);
        check("pkt_buf = 8192\nserver_lifetime = 60\n", &["pkt_buf"]);
        check("[insight]\nexplain_slow_queries = 1\nslow_query_threshold = 1\n", &["insight.explain_slow_queries"]);
        check("[cache]\nenabled = observe\n", &[]);
    }

    #[test]
    fn every_name_is_one_that_show_config_prints() {
        let keys: Vec<String> = Config::default().show().into_iter().map(|row| row.key).collect();
        let unknown: Vec<_> = WITHOUT_EFFECT.iter().filter(|key| !keys.contains(&(**key).to_owned())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
