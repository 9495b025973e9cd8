//! Prometheus' text format, for what the recorder does not hold.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details>

use std::fmt::Write;

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Number(f64),
}

/// The text under construction.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Goes on after `text`.
    pub(super) fn new(text: String) -> Self {
        Self { text }
    }

    /// Starts a family.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape_help(help)));
    }

    /// One line of the family started last.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        self.text.push_str(name);
        for (at, (label, content)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{}\"", escape_label(content)));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        match value {
            Value::Count(count) => self.put(format_args!(" {count}\n")),
            Value::Number(number) => self.put(format_args!(" {number}\n")),
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(arguments);
    }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn escape_label(text: &str) -> String {
    escape_help(text).replace('"', "\\\"")
}
