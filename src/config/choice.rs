//! Settings that are one word out of a few; case does not matter.

use super::value::{SettingValue, optional};

/// An enum whose variants have names in the file.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $Choice:ident {
            $(#[$first_meta:meta])* $First:ident = $first:literal $(or $first_alias:literal)?,
            $($(#[$variant_meta:meta])* $Variant:ident = $name:literal $(or $alias:literal)?,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Choice {
            $(#[$first_meta])* $First,
            $($(#[$variant_meta])* $Variant,)*
        }

        impl $Choice {
            /// As it is written in the file and on the console.
            pub fn label(self) -> &'static str {
                match self {
                    $Choice::$First => $first,
                    $($Choice::$Variant => $name,)*
                }
            }
        }

        impl SettingValue for $Choice {
            const EXPECTED: &'static str =
                concat!($first $(, " (", $first_alias, ")")? $(, " | ", $name $(, " (", $alias, ")")?)*);

            fn parse(text: &str) -> Option<$Choice> {
                match text {
                    $($first_alias => return Some($Choice::$First),)?
                    $($($alias => return Some($Choice::$Variant),)?)*
                    _ => {}
                }
                let all = [$Choice::$First $(, $Choice::$Variant)*];
                all.into_iter().find(|choice| choice.label().eq_ignore_ascii_case(text))
            }

            fn show(&self) -> Option<String> {
                Some(self.label().to_owned())
            }
        }
    };
}

choice! {
    /// When a server connection goes back to its pool.
    pub enum PoolMode {
        /// When the client leaves.
        Session = "session",
        /// When the transaction ends.
        Transaction = "transaction",
        /// When the statement ends; transactions are refused.
        Statement = "statement",
    }
}

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// As PgBouncer writes them.
        Pgbouncer = "pgbouncer",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// How clients prove who they are.
    pub enum AuthType {
        /// Anybody, under the user that the database is configured with.
        Any = "any",
        /// No proof, but the user must be known.
        Trust = "trust",
        /// The password in clear text.
        Plain = "plain",
        /// The md5 exchange; SCRAM for users whose secret is a SCRAM one.
        Md5 = "md5",
        /// A TLS client certificate.
        Cert = "cert",
        /// The matching line of auth_hba_file decides.
        Hba = "hba",
        /// A directory server is asked.
        Ldap = "ldap",
        /// PAM is asked.
        Pam = "pam",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
    }
}

choice! {
    /// Whether a connection is encrypted, and how much of the certificate is checked.
    pub enum SslMode {
        /// Never.
        Disable = "disable",
        /// As prefer.
        Allow = "allow",
        /// If the other side can.
        Prefer = "prefer",
        /// Always.
        Require = "require",
        /// Always, and the certificate has a known issuer.
        VerifyCa = "verify-ca",
        /// Always, and the certificate carries the host's name.
        VerifyFull = "verify-full",
    }
}

choice! {
    /// How many columns SHOW STATS has.
    #[derive(Default)]
    pub enum StatsColumns {
        /// As in PgBouncer after 1.25.2: with the logins of clients.
        #[default]
        WithLogins = "25",
        /// As in PgBouncer 1.24 to 1.25.2.
        WithoutLogins = "23",
    }
}

choice! {
    /// Which host of a list the next connection goes to.
    pub enum LoadBalanceHosts {
        /// Stay with one until it fails.
        Disable = "disable",
        /// The next one.
        RoundRobin = "round-robin",
    }
}

choice! {
    /// Whose writes a read is sure to see.
    pub enum ReadYourWrites {
        /// Nobody's.
        Off = "off",
        /// Those of its own session.
        Session = "session",
        /// Those of every client of the database.
        Database = "database",
    }
}

choice! {
    /// Whether reads go to replicas.
    pub enum ReadWriteSplit {
        /// Everything goes to the primary.
        Off = "off" or "0",
        /// Everything goes to the primary; what would go to a replica is counted.
        Log = "log",
        /// Reads go to replicas.
        On = "on" or "1",
    }
}

choice! {
    /// Whether the primary serves reads that replicas may serve.
    pub enum PrimaryReads {
        /// Only those that must see what no replica has yet; the others wait for a replica.
        Never = "never",
        /// Those that no replica can serve at the moment.
        Fallback = "fallback",
        /// It takes its share by weight.
        Always = "always",
    }
}

choice! {
    /// How the primary among the members of a database is known.
    pub enum RoleDetection {
        /// Each member is asked whether it is in recovery; a failover is followed.
        Auto = "auto",
        /// The entry of `[databases]` is the primary, those of `[replicas]` are replicas.
        Off = "off",
    }
}

choice! {
    /// What the result cache does.
    pub enum CacheMode {
        /// Nothing.
        Off = "0",
        /// Answers reads.
        On = "1",
        /// Decides and counts as if it were on, and answers nothing.
        Observe = "observe",
    }
}

choice! {
    /// What several proxies that share a cache promise each other.
    pub enum Coherence {
        /// A write is acknowledged when no proxy can serve what it changed.
        Strict = "strict",
        /// A write of another proxy is seen within the lease.
        Bounded = "bounded",
        /// A write of another proxy is seen when the entry expires.
        Off = "off",
    }
}

choice! {
    /// Who may get an answer that was fetched for somebody else.
    pub enum Share {
        /// The same role only.
        Role = "role",
        /// Every role that may read and call all that the statement does.
        Acl = "acl",
    }
}

choice! {
    /// Reads of tables with row-level security.
    pub enum RowSecurity {
        /// Never cached.
        Refuse = "refuse",
        /// Cached for each user and setting that the policies look at.
        Scoped = "scoped",
    }
}

choice! {
    /// What an entry of `[replicas]` may turn out to be.
    pub enum ReplicaRole {
        /// A replica; promoted, it is the primary.
        Replica = "replica",
        /// A cluster of its own, equal to the first one: while it takes writes it gets reads and writes by weight.
        Any = "any",
    }
}

optional!(PoolMode, ReadYourWrites);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case() {
        assert_eq!(PoolMode::parse("Transaction"), Some(PoolMode::Transaction));
        assert_eq!(AuthType::parse("SCRAM-SHA-256"), Some(AuthType::ScramSha256));
        assert_eq!(PoolMode::parse("transactional"), None);
    }

    #[test]
    fn what_was_a_switch_is_still_read_as_one() {
        for (text, expected) in [("0", "off"), ("1", "on"), ("OFF", "off"), ("log", "log"), ("on", "on")] {
            assert_eq!(ReadWriteSplit::parse(text).map(ReadWriteSplit::label), Some(expected));
        }
        assert_eq!(ReadWriteSplit::parse("2"), None);
        assert_eq!(ReadWriteSplit::EXPECTED, "off (0) | log | on (1)");
    }

    #[test]
    fn every_word_is_offered_in_the_error() {
        assert_eq!(PoolMode::EXPECTED, "session | transaction | statement");
    }
}
