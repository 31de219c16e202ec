//! The files of the dashboard and of the browser client, embedded at build time.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// (name, content type, text)
type Page = (&'static str, &'static str, &'static str);

const DASHBOARD: &[Page] = &[
    ("dashboard.html", "text/html; charset=utf-8", include_str!("assets/dashboard.html")),
    ("dashboard.js", "text/javascript; charset=utf-8", include_str!("assets/dashboard.js")),
    ("dashboard.css", "text/css; charset=utf-8", include_str!("assets/dashboard.css")),
];

const PLAY: &[Page] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// A file of the dashboard.
pub(super) fn dashboard(name: &str) -> Response {
    find(DASHBOARD, name)
}

/// A file of the browser client.
pub(super) fn play(name: &str) -> Response {
    find(PLAY, name)
}

fn find(pages: &[Page], name: &str) -> Response {
    match pages.iter().find(|(found, ..)| *found == name) {
        // Asked again every time: a node that was updated serves new files under old names.
        Some((_, content_type, text)) => {
            ([(header::CONTENT_TYPE, *content_type), (header::CACHE_CONTROL, "no-cache")], *text).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such page\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::PLAY;

    #[test]
    fn the_browser_client_is_complete() {
        let text = |name| PLAY.iter().find(|page| page.0 == name).map(|page| page.2);
        let page = text("play.html").expect("play.html");
        for (name, _, code) in PLAY.iter().filter(|page| page.1.starts_with("text/javascript")) {
            for import in
                code.lines().filter_map(|line| line.split_once("from './")).filter_map(|(_, rest)| rest.split('\'').next())
            {
                assert!(text(import).is_some(), "{name} imports {import}");
            }
        }
        for attribute in ["src=\"", "href=\""] {
            for name in page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(name.starts_with("data:") || name.ends_with('/') || text(name).is_some(), "play.html names {name}");
            }
        }
    }
}
