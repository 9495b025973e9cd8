//! The SQLSTATE codes that pgweir itself reports.
//!
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html>

/// Five characters that tell a client what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// `successful_completion`: of a notice.
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// `too_many_connections`.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `protocol_violation`: PgBouncer's default for everything that it reports itself.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `connection_failure`.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// `transaction_resolution_unknown`: it may be committed.
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    /// `cannot_connect_now`.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `admin_shutdown`.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `query_canceled`.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `feature_not_supported`.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `invalid_sql_statement_name`: an unknown prepared statement.
    pub const INVALID_STATEMENT_NAME: Self = Self(*b"26000");
    /// `duplicate_prepared_statement`.
    pub const DUPLICATE_STATEMENT: Self = Self(*b"42P05");
    /// `invalid_password`.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `invalid_authorization_specification`.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// `invalid_catalog_name`: no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// `invalid_parameter_value`.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// `read_only_sql_transaction`: a write reached a replica.
    pub const READ_ONLY_TRANSACTION: Self = Self(*b"25006");
    /// `object_not_in_prerequisite_state`.
    pub const NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// `serialization_failure`: on a replica, a conflict with recovery.
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    /// `database_dropped`.
    pub const DATABASE_DROPPED: Self = Self(*b"57P04");

    /// The code as text; never fails because codes are ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}
