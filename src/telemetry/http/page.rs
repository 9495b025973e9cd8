//! The dashboard: one page without outside assets.

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");

/// The page and the policy that lets only its own script run.
pub(super) struct Page {
    policy: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let hash = STANDARD.encode(digest(&SHA256, script().as_bytes()));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { policy }
    }

    pub(super) fn response(&self) -> Response {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, self.policy.as_str()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        (headers, Html(HTML)).into_response()
    }
}

/// What stands between the script tags.
fn script() -> &'static str {
    let after = HTML.split_once("<script>").map_or("", |(_, after)| after);
    after.split_once("</script>").map_or("", |(script, _)| script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_but_this_server() {
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!HTML.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_page_puts_values_in_as_text_never_as_markup() {
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!HTML.contains(markup), "{markup}");
        }
        assert!(script().contains("textContent"));
    }
}
