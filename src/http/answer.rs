//! What answers look like, errors above all: `{"error": "..."}`.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Longest body, bytes.
pub const MAX_BODY: usize = 1 << 20;

/// An answer with a body of JSON.
pub fn json_of(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// 200 with a body of JSON.
pub fn ok(body: &Value) -> Response {
    json_of(StatusCode::OK, body)
}

/// Something went wrong, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub StatusCode, pub String);

impl Failure {
    pub fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self(status, what.into())
    }

    /// The node behind the API has stopped.
    pub fn stopped() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json_of(self.0, &json!({ "error": self.1 }));
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// What a handler answers.
pub type Answer = Result<Response, Failure>;

/// Nothing is there.
pub async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no such path")
}

/// It is there, and cannot be used like that.
pub async fn wrong_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}

/// A body as JSON; an absent one is null.
///
/// # Errors
///
/// 400 if it is no JSON, 413 if it is too long.
pub fn body_of(body: Result<Bytes, BytesRejection>) -> Result<Value, Failure> {
    let bytes = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has at most {MAX_BODY} bytes"),
        ),
        status => Failure::new(status, rejection.body_text()),
    })?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
    })
}
