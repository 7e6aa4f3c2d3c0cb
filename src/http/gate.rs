//! Who may ask at all. Every request passes here before its body is read and before a route sees
//! it.
//!
//! What must stay true: with a token, nothing but `GET /health` is answered to a client that does
//! not show it; and no page of another site can make a browser read or write here. A browser sends
//! requests for any page that its user opens, from the user's own machine, so an address that only
//! that machine can reach is no protection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::answer::{Failure, MAX_BODY};

/// Where a browser says from which site a request comes, and what for.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// Of the body of a refused request, what comes with pauses no longer than this is thrown away
/// before the answer goes out, up to [`MAX_BODY`] bytes and for [`DISCARDING`] at most. If the
/// connection were closed upon bytes that nobody has read, the system would reset it, and a client
/// that is still sending would never see the answer.
const DISCARD_PAUSE: Duration = Duration::from_millis(50);
const DISCARDING: Duration = Duration::from_secs(1);

/// Who may ask.
#[derive(Clone)]
pub struct Gate {
    /// SHA-256 of the token that requests have to carry, if there is one.
    token: Option<[u8; 32]>,
    /// Whether `Host` has to be an IP address or `localhost`.
    local_names: bool,
}

impl Gate {
    /// A gate that asks for this token. Without one it lets in all that reaches `listen`, except
    /// that on a loopback address clients have to call this machine by its IP address or
    /// `localhost`: a page elsewhere can make its own name stand for 127.0.0.1 (DNS rebinding), and
    /// would then be of the same site as this one.
    pub fn new(token: Option<&str>, listen: IpAddr) -> Self {
        let token = token.map(|token| Sha256::digest(token).into());
        Self { local_names: token.is_none() && listen.to_canonical().is_loopback(), token }
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let headers = request.headers();
        if self.local_names {
            check_name(headers)?;
        }
        check_site(request)?;
        self.check_token(request)?;
        check_kind(headers, request.body())
    }

    /// Asks for the token. Load balancers, which have none, may ask whether the process lives.
    fn check_token(&self, request: &Request) -> Result<(), Failure> {
        let Some(expected) = &self.token else { return Ok(()) };
        let (method, path) = (request.method(), request.uri().path());
        if matches!(*method, Method::GET | Method::HEAD) && path == "/health" {
            return Ok(());
        }
        match shown(request.headers()) {
            None => Err(unauthorized("this needs the header Authorization: Bearer TOKEN")),
            Some(token) if is_same(&Sha256::digest(token).into(), expected) => Ok(()),
            Some(_) => Err(unauthorized("that is not the token of this process")),
        }
    }
}

fn unauthorized(what: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, what)
}

fn forbidden(what: impl Into<String>) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, what)
}

/// The token that a request shows.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether two digests are the same. This takes as long wherever they differ, so that the time of
/// an answer tells nothing.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

/// Refuses a request in which this machine is called by a name that others could have made up. A
/// client that says no name is no browser.
fn check_name(headers: &HeaderMap) -> Result<(), Failure> {
    let is_local = |host: &HeaderValue| {
        let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        host.is_some_and(|host| {
            let name = host.host();
            let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            name.eq_ignore_ascii_case("localhost") || bare.unwrap_or(name).parse::<IpAddr>().is_ok()
        })
    };
    if headers.get_all(header::HOST).iter().all(is_local) {
        return Ok(());
    }
    Err(forbidden(
        "the header Host has to be an IP address or localhost, since this listens on a loopback \
         address and asks for no token",
    ))
}

/// Refuses what a browser asks for a page of another site. For pages of this one it is let through,
/// and so is the user who follows a link from elsewhere: the page with the link cannot see where
/// that leads.
fn check_site(request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN)
        && !is_own(origin, headers.get(header::HOST))
    {
        return Err(forbidden("pages of another site may not ask here: Origin is not Host"));
    }
    let says = |name: &HeaderName, words: &[&str]| {
        headers.get(name).is_some_and(|value| words.iter().any(|word| value == word))
    };
    let follows_a_link = *request.method() == Method::GET
        && says(&FETCH_MODE, &["navigate"])
        // A page that is shown within another one, which could cover parts of it, is no document.
        && (!headers.contains_key(&FETCH_DEST) || says(&FETCH_DEST, &["document"]));
    if says(&FETCH_SITE, &["cross-site", "same-site"]) && !follows_a_link {
        return Err(forbidden("pages of another site may not ask here: see Sec-Fetch-Site"));
    }
    Ok(())
}

/// Whether a page is of this site: its origin has the name and port that the request is sent to.
/// Whether one of them is encrypted and the other is not cannot be told behind a proxy.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
    let (Some(origin), Some(host)) = (text(origin), host.and_then(text)) else { return false };
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let short = |text: &str| text.strip_suffix(usual).unwrap_or(text).to_owned();
    short(origin) == short(&host)
}

/// Refuses a body that calls itself anything but JSON. A browser sends a form or plain text to
/// another site without asking there first; JSON it sends only once that site has agreed, and this
/// one never does. A body that has no name can be sent by a page elsewhere too, and is accepted,
/// because many clients of other kinds send none: of a page's request, `Origin` tells.
fn check_kind(headers: &HeaderMap, body: &Body) -> Result<(), Failure> {
    let is_json = |kind: &HeaderValue| {
        let kind = kind.to_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    };
    if body.is_end_stream() || headers.get_all(header::CONTENT_TYPE).iter().all(is_json) {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a body has to be JSON: send it with Content-Type: application/json",
    ))
}

/// Lets a request on, or answers in its place.
pub async fn guarded(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let Err(failure) = gate.check(&request) else { return next.run(request).await };
    // A client that waits to be told to go on with its body needs no more than the answer.
    if !request.headers().contains_key(header::EXPECT) {
        let _ = timeout(DISCARDING, discard(request.into_body())).await;
    }
    let mut response = failure.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    response
}

/// Throws away what comes of a body without a pause.
async fn discard(body: Body) {
    let mut body = body.into_data_stream();
    let mut left = MAX_BODY;
    while let Ok(Some(Ok(part))) = timeout(DISCARD_PAUSE, body.next()).await
        && let Some(less) = left.checked_sub(part.len())
    {
        left = less;
    }
}
