//! Messages of protocol 3.0, built and read without any code of the proxy.

/// One message as it was on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(formatter, "{} {:?}", char::from(self.tag), String::from_utf8_lossy(shown))
    }
}

impl Frame {
    /// The bytes that go on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        message(self.tag, &self.body)
    }

    /// A field of ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        assert_eq!(self.tag, b'D', "{self:?}");
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        (0..count)
            .map(|_| {
                let (length, tail) = rest.split_at(4);
                let length = i32::from_be_bytes(length.try_into().unwrap());
                let Ok(length) = usize::try_from(length) else {
                    rest = tail;
                    return None;
                };
                let (value, tail) = tail.split_at(length);
                rest = tail;
                Some(value.to_vec())
            })
            .collect()
    }

    /// The column names of a RowDescription.
    pub fn columns(&self) -> Vec<String> {
        self.columns_and_types().into_iter().map(|(name, _)| name).collect()
    }

    /// Names and type OIDs of a RowDescription.
    pub fn columns_and_types(&self) -> Vec<(String, u32)> {
        assert_eq!(self.tag, b'T', "{self:?}");
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == 0).unwrap();
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            let fixed = &rest[end + 1..];
            columns.push((name, u32::from_be_bytes(fixed[6..10].try_into().unwrap())));
            rest = &fixed[18..];
        }
        columns
    }

    /// The body up to its terminating zero.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.strip_suffix(&[0]).unwrap_or(&self.body)).into_owned()
    }
}

/// A typed message.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn zero_terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A message of the login phase, which has no type byte.
pub fn untyped(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// StartupMessage of protocol `major.minor`.
pub fn startup_of(major: u16, minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = major.to_be_bytes().to_vec();
    body.extend(minor.to_be_bytes());
    for (name, value) in parameters {
        body.extend(zero_terminated(name));
        body.extend(zero_terminated(value));
    }
    body.push(0);
    untyped(&body)
}

/// StartupMessage of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_of(3, 0, parameters)
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    untyped(&80_877_103_u32.to_be_bytes())
}

/// GSSENCRequest.
pub fn gss_request() -> Vec<u8> {
    untyped(&80_877_104_u32.to_be_bytes())
}

/// CancelRequest with the key as BackendKeyData carried it: process id, then secret.
pub fn cancel_request(key: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(key);
    untyped(&body)
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &zero_terminated(sql))
}

/// Parse, with the types of the parameters left to the server.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = zero_terminated(name);
    body.extend(zero_terminated(sql));
    body.extend(0_u16.to_be_bytes());
    message(b'P', &body)
}

/// Bind with text parameters; `binary` asks for binary results.
pub fn bind_as(portal: &str, statement: &str, values: &[Option<&str>], binary: bool) -> Vec<u8> {
    let mut body = zero_terminated(portal);
    body.extend(zero_terminated(statement));
    body.extend(0_u16.to_be_bytes());
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend(value.as_bytes());
            }
        }
    }
    body.extend(1_u16.to_be_bytes());
    body.extend(u16::from(binary).to_be_bytes());
    message(b'B', &body)
}

/// Bind of text parameters to the unnamed portal, text results.
pub fn bind(statement: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
    bind_as("", statement, &values, false)
}

/// Describe of a statement.
pub fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[&b"S"[..], &zero_terminated(name)].concat())
}

/// Describe of a portal.
pub fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[&b"P"[..], &zero_terminated(name)].concat())
}

/// Execute; 0 rows means all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = zero_terminated(portal);
    body.extend(rows.to_be_bytes());
    message(b'E', &body)
}

/// Close of a statement.
pub fn close_statement(name: &str) -> Vec<u8> {
    message(b'C', &[&b"S"[..], &zero_terminated(name)].concat())
}

/// Close of a portal.
pub fn close_portal(name: &str) -> Vec<u8> {
    message(b'C', &[&b"P"[..], &zero_terminated(name)].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// Flush.
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// CopyData.
pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &zero_terminated(reason))
}

/// FunctionCall with text arguments, text result.
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(0_u16.to_be_bytes());
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend(0_u16.to_be_bytes());
    message(b'F', &body)
}

/// RowDescription of text columns, as a server says it.
pub fn row_description(names: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(names.len()).unwrap().to_be_bytes().to_vec();
    for name in names {
        body.extend(zero_terminated(name));
        body.extend(0_u32.to_be_bytes());
        body.extend(0_u16.to_be_bytes());
        body.extend(25_u32.to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend((-1_i32).to_be_bytes());
        body.extend(0_u16.to_be_bytes());
    }
    message(b'T', &body)
}

/// DataRow of text values, as a server says it.
pub fn data_row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'D', &body)
}

/// CommandComplete.
pub fn command_complete(tag: &str) -> Vec<u8> {
    message(b'C', &zero_terminated(tag))
}

/// ReadyForQuery.
pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[zero_terminated(name), zero_terminated(value)].concat())
}

/// ErrorResponse or, with tag `N`, NoticeResponse.
pub fn response(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', text)] {
        body.push(field);
        body.extend(zero_terminated(value));
    }
    body.push(0);
    message(tag, &body)
}
