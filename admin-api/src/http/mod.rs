//! The pages of a node: health, metrics, dashboard, browser client.
//!
//! GET only. Nothing here changes anything or tells a secret, but for `/play/token`, which answers in development clusters
//! alone. The page of one node asks the others for their status by itself, so that no node asks another on a stranger's
//! behalf; the answer to a foreign origin is readable for members of the cluster only.

mod pages;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use marchland_types::limits::NAME_MAX_BYTES;
use serde::{Deserialize, Serialize};

use crate::AdminBackend;
use crate::backend::MemberPages;
use crate::status::NodeView;

pub use serve::{CONNECTIONS_MAX, serve};

/// Time within which a page is answered, and within which the head of a request must be complete.
pub const RESPOND_WITHIN: Duration = Duration::from_secs(5);

/// Scripts and styles come from this node alone; players' sockets and other nodes' status may be elsewhere.
const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                              connect-src 'self' http: https: ws: wss:; frame-ancestors 'none'; base-uri 'self'";

type Backend = State<Arc<dyn AdminBackend>>;

/// Every page of a node.
pub fn router(backend: Arc<dyn AdminBackend>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status.json", get(status))
        .route("/", get(|| async { pages::dashboard("dashboard.html") }))
        .route("/dashboard.js", get(|| async { pages::dashboard("dashboard.js") }))
        .route("/dashboard.css", get(|| async { pages::dashboard("dashboard.css") }))
        .route("/play", get(|| async { pages::play("play.html") }))
        .route("/play/", get(|| async { pages::play("play.html") }))
        .route("/play/token", get(token))
        .route("/play/map.json", get(map))
        .route("/play/{file}", get(|Path(file): Path<String>| async move { pages::play(&file) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "no such page\n") })
        .layer(middleware::from_fn(bounded))
        .with_state(backend)
}

/// Bounds the time of an answer and says what browsers may do with it.
async fn bounded(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(RESPOND_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the node did not answer in time\n").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn ready(State(backend): Backend) -> Response {
    match backend.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(backend): Backend) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], backend.metrics_text()).into_response()
}

#[derive(Serialize)]
struct StatusPage {
    #[serde(flatten)]
    node: NodeView,
    members: Vec<MemberPages>,
}

async fn status(State(backend): Backend, headers: HeaderMap) -> Response {
    let members = backend.members();
    let node = NodeView::from(&backend.status().await);
    let origin = headers.get(header::ORIGIN).filter(|origin| members.iter().any(|m| m.http.as_bytes() == origin.as_bytes()));
    let origin = origin.cloned();
    let mut response = Json(StatusPage { node, members }).into_response();
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

#[derive(Deserialize)]
struct TokenQuery {
    #[serde(default)]
    name: String,
}

async fn token(State(backend): Backend, Query(query): Query<TokenQuery>) -> Response {
    let name = query.name.trim();
    // U+FFFD is what undecodable bytes were turned into.
    let odd = name.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    if name.is_empty() || name.len() > NAME_MAX_BYTES || odd {
        let reason = format!("name must have 1 to {NAME_MAX_BYTES} bytes of printable text\n");
        return (StatusCode::BAD_REQUEST, reason).into_response();
    }
    match backend.mint_token(name) {
        Some(minted) => Json(minted).into_response(),
        None => (StatusCode::NOT_FOUND, "tokens are handed out in development clusters only\n").into_response(),
    }
}

async fn map(State(backend): Backend) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], backend.map_json()).into_response()
}
